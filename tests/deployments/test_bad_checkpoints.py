"""Checkpoints that vLLM could not load, or not as asked: one line and exit code 2, before anything is started."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import write_checkpoint

Break = Callable[[Path], object]


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def write_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)


def with_config(**fields: Any) -> Break:
    return lambda folder: write_config(
        folder, json.dumps({**json.loads((folder / "config.json").read_text()), **fields})
    )


FAULTS: dict[str, tuple[Break, dict[str, Any], str]] = {
    "truncated": (cut, {}, "model.safetensors is cut off: 64,536 bytes of 65,536 after its header; fetch it again"),
    "shard": (lose_a_shard, {}, "lacks 'model-00002-of-00002.safetensors', named in model.safetensors.index.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), {}, "has no weights"),
    "no config": (lambda folder: (folder / "config.json").unlink(), {}, "has no config.json"),
    "config": (lambda folder: write_config(folder, "{"), {}, "config.json is not JSON"),
    "dtype": (
        with_config(torch_dtype="bfloat61"),
        {},
        "dtype = 'bfloat61': torch has no such type — did you mean 'bfloat16'",
    ),
    "template": (lambda folder: None, {"chat_template": True}, "the checkpoint has none; set chat_template: false"),
    "window": (
        lambda folder: None,
        {"max_model_len": 2049},
        "max_model_len = 2049: the checkpoint's window is 2,048 tokens",
    ),
    "window by vllm": (
        lambda folder: None,
        {"vllm": {"max_model_len": 4096}},
        "max_model_len is set by the model's max_model_len",
    ),
    "code": (
        with_config(auto_map={"AutoModel": "m.M"}, architectures=None),
        {},
        "set trust_remote_code: true to run it",
    ),
    "tokenizer": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        {},
        "has no tokenizer (tokenizer.json, tokenizer.model)",
    ),
}


@pytest.mark.parametrize(("damage", "asked", "words"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_before_anything_starts(
    steelyard: Callable[..., tuple[int, str, str]],
    campaign: Callable[..., str],
    tmp_path: Path,
    damage: Break,
    asked: dict[str, Any],
    words: str,
) -> None:
    damage(write_checkpoint(tmp_path / "broken"))
    code, out, err = steelyard("run", campaign(models=[{"model": str(tmp_path / "broken"), **asked}]))
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert words in err
    assert not (tmp_path / "results").exists()
