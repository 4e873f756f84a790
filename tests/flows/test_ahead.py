"""The next model loads while the one before answers its last requests."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

import flows.evaluate_model
from core.compare.agreement import agreement
from core.request import Request, Response
from core.results import open_store
from flows.campaign import campaign
from tests import models
from tests.flows.scripted import LIMIT, Engines, answer
from tests.scripted_engine import ScriptedEngine


class OneAfterTheOther(Engines):
    """The first engine does not answer its last doc before the second is open."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self._second = threading.Event()

    def build(self, *arguments: Any) -> ScriptedEngine:
        name = arguments[1].model.name
        world, is_first = self, not self.built

        class Watched(ScriptedEngine):
            def open(self) -> Any:
                world.events.append(f"{name} open")
                if not is_first:
                    world._second.set()
                return super().open()

            def close(self, *, keep: bool = True) -> None:
                if self._running:
                    world.events.append(f"{name} closed")
                super().close(keep=keep)

        def script(request: Request) -> Response:
            if is_first and request.id.startswith(f"steelyard_facts/{LIMIT - 1}/"):
                assert self._second.wait(60)
            return answer(request)

        self.built[name] = Watched(script)
        return self.built[name]


def test_the_next_engine_is_open_before_the_one_before_is_closed(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = OneAfterTheOther()
    monkeypatch.setattr(flows.evaluate_model, "build_engine", engines.build)
    result = campaign({**spec, "fleet": {**spec["fleet"], "gpus": 1}, "policy": {"load_ahead": True}})
    before, after = engines.built
    assert engines.events == [f"{before} open", f"{after} open", f"{before} closed", f"{after} closed"]
    assert list(result.leaderboard["docs"]) == [LIMIT] * 4
    (run,) = open_store(spec["results"]).campaigns()
    assert len(run["models"]) == 2


@pytest.mark.vllm
def test_scores_are_those_of_models_that_load_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = models.cache_directory(tmp_path)
    shared = {"dtype": "float32", "max_model_len": 1024}
    spec = {
        "name": "ahead",
        "models": [
            {"model": str(models.smollm2(cache)), "name": "a", **shared},
            {"model": str(models.padded_smollm2(cache)), "name": "b", **shared},
        ],
        "benchmarks": [{"name": "steelyard_letters", "limit": 60}, {"name": "steelyard_arithmetic", "limit": 12}],
        "fleet": {"gpus": 1, "gpu_memory_gb": 8, "device": "cpu"},
        "policy": {"load_ahead": True},
        "results": str(tmp_path / "results"),
        "canary": False,
    }
    with caplog.at_level(logging.INFO):
        campaign(spec)
    assert caplog.text.count("loaded ahead in") == 1
    store = open_store(str(tmp_path / "results"))
    for compared in agreement(store.samples(), "a", "b"):
        assert compared.docs in (60, 12)
        assert compared.same_answers >= 0.98
        assert compared.logprob_p99 < 0.01
