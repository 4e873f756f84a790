"""SIGTERM and Ctrl-C end a campaign with everything it started: found by a mark in the environment, wherever it went."""

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests import models


def marked(mark: str) -> list[psutil.Process]:
    """Living processes that inherited ``mark``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("STEELYARD_TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue  # gone meanwhile, or not ours
    return found


def campaign(tmp_path: Path, engine: str) -> Path:
    cache = models.cache_directory(tmp_path)
    checkpoint = models.smollm2(cache) if engine == "lightweight" else models.padded_smollm2(cache)
    degree = {} if engine == "lightweight" else {"tensor_parallel": 2}
    spec = {
        "name": "interrupted",
        "models": [{"model": str(checkpoint), "engine": engine, "max_model_len": 1024, **degree}],
        "benchmarks": [{"name": "steelyard_arithmetic", "sampling": {"max_tokens": 512, "until": ["never said"]}}],
        "fleet": {"gpus": 2, "gpu_memory_gb": 6, "device": "cpu"},
        "results": str(tmp_path / "results"),
    }
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("engine", "sent", "code"), [("lightweight", signal.SIGINT, 130), ("distributed", signal.SIGTERM, 143)]
)
def test_an_interrupted_campaign_leaves_no_process(
    tmp_path: Path, engine: str, sent: signal.Signals, code: int
) -> None:
    mark = secrets.token_hex(8)
    process = subprocess.Popen(
        [sys.executable, "-c", "from deployments.cli import main; main()", "run", str(campaign(tmp_path, engine))],
        env={**os.environ, "STEELYARD_TEST_MARK": mark, "COLUMNS": "200"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if f"{engine} engine loaded" in line:
                break
        assert process.poll() is None, "".join(said)
        assert len(marked(mark)) > 2
        os.killpg(process.pid, sent)  # as a terminal does: the whole foreground group
        process.stderr.read()
        assert process.wait(timeout=60) == code
        psutil.wait_procs(marked(mark), timeout=20)
        assert [" ".join(left.cmdline()) for left in marked(mark)] == []
    finally:
        for left in marked(mark):
            left.kill()
