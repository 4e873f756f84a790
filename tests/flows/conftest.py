from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import write_checkpoint
from tests.flows.scripted import BENCHMARKS, Engines


@pytest.fixture(scope="session", autouse=True)
def prefect_server(prefect_harness: None) -> None:
    """Flows of this folder run on the session's temporary server."""


@pytest.fixture(autouse=True)
def nothing_prewarmed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripted engines take no process."""
    if request.node.get_closest_marker("vllm") is None:
        monkeypatch.setattr("engines.process.lightweight.prewarmed", lambda device: None)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    engines = Engines()
    monkeypatch.setattr("engines.bench.bench.build_engine", engines.build)
    return engines


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    models = [str(write_checkpoint(tmp_path / name, seed)) for seed, name in enumerate(["first", "second"])]
    return {
        "name": "flows",
        "models": models,
        "benchmarks": BENCHMARKS,
        "fleet": {"gpus": 2, "gpu_memory_gb": 8, "device": "cpu"},
        "results": str(tmp_path / "results"),
    }
