"""Checkpoints of the hub: what is listed, hashed and fetched there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from core.model.checkpoint import read_checkpoint
from tests.checkpoints import write_checkpoint
from tests.hub_server import hub_server

READ = """
import json, sys
from pathlib import Path
from core.errors import UserError
from core.model.checkpoint import read_checkpoint
from core.model.weights import fetch_checkpoint
for source in sys.argv[1:]:
    try:
        checkpoint = read_checkpoint(source)
    except UserError as error:
        print(json.dumps({"error": str(error)}))
        continue
    folder = fetch_checkpoint(checkpoint)
    fetched = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    same = read_checkpoint(str(folder))
    print(json.dumps({
        "revision": checkpoint.revision, "chosen": checkpoint.weight_files, "bytes": checkpoint.weight_bytes,
        "fetched": fetched, "local": same.weight_files, "error": None,
    }))
"""


def test_of_a_repository_the_files_that_vllm_loads_are_hashed_and_fetched(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    weights = (folder / "model.safetensors").read_bytes()
    small = {name: (folder / name).read_bytes() for name in ("config.json", "tokenizer.json")}
    both = {**small, "model.safetensors": weights, "pytorch_model.bin": b"1", "original/consolidated.00.pth": b"1"}
    with hub_server() as hub:
        commit = hub.push("org/both", {**both, "consolidated.safetensors": weights, "params.json": b"{}"})
        hub.push("org/below", {**both, "original/consolidated.safetensors": weights})
        hub.push("org/trainer", {f"checkpoint-{step}/config.json": b"{}" for step in (5, 10)})
        env = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
        }
        command = [sys.executable, "-c", READ, "org/both", "org/below", "org/trainer"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found, below, trainer = map(json.loads, done.stdout.splitlines())
    assert found["error"] is None, found
    assert (found["revision"], found["chosen"], found["local"]) == (
        commit,
        ["consolidated.safetensors"],
        found["chosen"],
    )
    assert found["bytes"] == read_checkpoint(str(folder)).weight_bytes
    assert found["fetched"] == ["config.json", "consolidated.safetensors", "params.json", "tokenizer.json"]
    assert "original/consolidated.safetensors has vLLM look for Mistral's format" in below["error"]
    assert "name checkpoint-10 itself" in trainer["error"]
