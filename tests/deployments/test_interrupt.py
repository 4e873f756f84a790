"""SIGTERM and Ctrl-C end a campaign with everything it started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import models
from tests.processes import nothing_left, running, started_since


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
    ("engine", "sent", "code"),
    [
        pytest.param("lightweight", signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param("distributed", signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_campaign_leaves_no_process(
    tmp_path: Path, engine: str, sent: signal.Signals, code: int
) -> None:
    before = running()
    process = subprocess.Popen(
        [sys.executable, "-c", "from deployments.cli import main; main()", "run", str(campaign(tmp_path, engine))],
        env={**os.environ, "COLUMNS": "200"},
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
        assert len(started_since(before)) > 2
        os.killpg(process.pid, sent)  # as a terminal does: the whole foreground group
        process.stderr.read()
        assert process.wait(timeout=60) == code
        assert nothing_left(before)
    finally:
        for left in started_since(before):
            left.kill()
