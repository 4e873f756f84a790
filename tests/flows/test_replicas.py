"""A campaign whose model is spread over idle devices; the engines are scripted."""

import threading
from typing import Any

import pytest

from core.errors import EngineDiedError
from core.request import Request, Response
from core.results import open_store
from engines.host.slots import DevicePool, holders
from flows.campaign import campaign
from tests.flows.scripted import LIMIT, Engines, answer
from tests.scripted_engine import ScriptedEngine


class Replicas(Engines):
    """Keeps all engines that were built; `killed` ones die at their second request."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[ScriptedEngine] = []
        self.killed: set[int] = set()
        self._both = threading.Barrier(2, timeout=60)

    def build(self, *arguments: Any) -> ScriptedEngine:
        number = len(self.all)

        def meets(request: Request) -> Response:
            seen = self.all[number].seen
            if len(seen) == 1 and number < 2:
                self._both.wait()  # each has something to answer
            if len(seen) == 2 and number in self.killed:
                raise EngineDiedError("killed by SIGKILL")
            return answer(request)

        self.scripts[arguments[1].model.name] = meets
        self.all.append(super().build(*arguments))
        return self.all[-1]


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> Replicas:
    found = Replicas()
    monkeypatch.setattr("engines.bench.bench.build_engine", found.build)
    return found


@pytest.fixture
def small(spec: dict[str, Any]) -> dict[str, Any]:
    """One model, whose engines answer one doc at a time."""
    return {
        **spec,
        "models": [{"model": spec["models"][0], "name": "first", "vllm": {"max_num_seqs": 1}}],
        "policy": {"docs_per_replica": LIMIT},
    }


def test_replicas_answer_one_cell_together(replicas: Replicas, small: dict[str, Any]) -> None:
    board = campaign(small).leaderboard
    assert [engine.closed for engine in replicas.all] == [1, 1]
    assert all(engine.seen for engine in replicas.all)
    assert not set(replicas.all[0].seen) & set(replicas.all[1].seen)
    assert set(board["replicas"]) <= {1, 2}
    assert 2 in set(board["replicas"])
    assert set(board["docs"]) == {LIMIT}
    assert holders(DevicePool("cpu", ("0", "1"))) == []
    replicas.all.clear()
    campaign({**small, "models": [{**small["models"][0], "replicas": 1}]})
    assert replicas.all == []  # it is the same cell, whoever computed it


def test_a_replica_that_dies_costs_no_sample(replicas: Replicas, small: dict[str, Any]) -> None:
    replicas.killed = {1}
    campaign(small)
    samples = open_store(small["results"]).samples()
    assert len(samples) == 2 * LIMIT
    assert samples["error"].isna().all()


def test_a_model_that_may_have_no_replicas_has_none(replicas: Replicas, small: dict[str, Any]) -> None:
    replicas._both = threading.Barrier(1)
    campaign({**small, "policy": {"replicas_max": 1}})
    assert len(replicas.all) == 1
