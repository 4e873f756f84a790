"""Campaigns that ask for the same cells at once. Engines are scripted; the stores are a directory and a real S3 server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from core.errors import EngineDiedError
from core.request import Request, Response
from core.results import open_store
from core.storage.open import open_storage
from engines.host.slots import DevicePool, Held, holders
from engines.session.arguments import known_arguments
from flows.campaign import CampaignFailedError, campaign
from tests.checkpoints import write_checkpoint
from tests.flows.scripted import LIMIT, answer
from tests.scripted_engine import ScriptedEngine
from tests.waiting import until

SECONDS = 120
FACTS = {"name": "steelyard_facts", "limit": LIMIT}
ARITHMETIC = {"name": "steelyard_arithmetic", "limit": LIMIT}
LETTERS = {"name": "steelyard_letters", "limit": LIMIT}


class Machines:
    """Builds scripted engines and counts what they are asked, by model and request."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.built: list[ScriptedEngine] = []
        self.script: Callable[[str, Request], Response] = lambda model, request: answer(request)

    def build(self, spec: Any, planned: Any, config: Any, held: Held, cluster: Any) -> ScriptedEngine:
        source = planned.checkpoint.source

        def answers(request: Request) -> Response:
            self.asked[source, request.id] += 1
            return self.script(spec.name, request)

        engine = ScriptedEngine(answers)
        self.built.append(engine)
        return engine


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Machines:
    machines = Machines()
    known_arguments()  # CPython 3.11 parses Python in one thread at a time; two campaigns are two processes elsewhere
    monkeypatch.setattr("engines.bench.bench.build_engine", machines.build)
    monkeypatch.setattr("flows.cells.IMPORT_SECONDS", 0.0)
    return machines


@pytest.fixture(params=["directory", pytest.param("s3", marks=[pytest.mark.s3, pytest.mark.slow])])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "results") if request.param == "directory" else request.getfixturevalue("s3_root")


def a_spec(tmp_path: Path, results: str, name: str, **changes: Any) -> dict[str, Any]:
    model = tmp_path / "model"
    if not model.exists():
        write_checkpoint(model, 0)
    return {
        "name": name,
        "models": [str(model)],
        "benchmarks": [FACTS],
        "fleet": {"gpus": 2, "gpu_memory_gb": 8, "device": "cpu"},
        "results": results,
        **changes,
    }


def started(pool: ThreadPoolExecutor, spec: dict[str, Any]) -> Future[Any]:
    return pool.submit(lambda: campaign(spec))


def test_of_two_campaigns_over_the_same_cells_each_cell_is_computed_once(
    machines: Machines, tmp_path: Path, results: str
) -> None:
    models = [str(write_checkpoint(tmp_path / f"m{seed}", seed)) for seed in range(2)]
    changes: dict[str, Any] = {"models": models, "benchmarks": [FACTS, ARITHMETIC, LETTERS]}
    one, two = (a_spec(tmp_path, results, name, **changes) for name in ("one", "two"))

    def slow(name: str, request: Request) -> Response:
        threading.Event().wait(0.02)
        return answer(request)

    machines.script = slow
    with ThreadPoolExecutor(2) as pool:
        boards = [future.result(SECONDS).leaderboard for future in [started(pool, one), started(pool, two)]]
    assert [len(board) for board in boards] == [6, 6]
    assert set(machines.asked.values()) == {1}
    samples = open_store(results).samples()
    assert len(samples) == 6 * LIMIT
    assert not samples.duplicated(["fingerprint", "task", "doc_id"]).any()
    storage = open_storage(results)
    assert storage.list("leases") == storage.list("holders") == storage.list("responses") == []


def test_who_waits_for_anothers_cell_does_its_own_first_and_then_holds_no_device(
    machines: Machines, tmp_path: Path
) -> None:
    results = str(tmp_path / "results")
    first = a_spec(tmp_path, results, "first")
    second = a_spec(tmp_path, results, "second", benchmarks=[FACTS, ARITHMETIC])
    answering, go = threading.Event(), threading.Event()

    def script(name: str, request: Request) -> Response:
        if name == "first":
            answering.set()
            assert go.wait(SECONDS)
        return answer(request)

    machines.script = script
    with ThreadPoolExecutor(2) as pool:
        winner = started(pool, first)
        assert answering.wait(SECONDS)
        waiting = started(pool, second)
        with ExitStack() as stack:
            stack.callback(go.set)
            until(lambda: len(machines.built) == 2 and machines.built[1].closed == 1, SECONDS)
            until(lambda: open_store(results).leaderboard()["benchmark"].tolist() == ["steelyard_arithmetic"], SECONDS)
            until(lambda: len(holders(DevicePool("cpu", ("0", "1")))) == 1, SECONDS)
        winner.result(SECONDS)
        assert len(waiting.result(SECONDS).leaderboard) == 2
    assert set(machines.asked.values()) == {1}
    assert len(machines.built) == 2


def test_who_has_nothing_but_anothers_cell_to_wait_for_builds_no_engine_and_takes_it_where_that_one_fails(
    machines: Machines, tmp_path: Path
) -> None:
    results = str(tmp_path / "results")
    answering, fail = threading.Event(), threading.Event()

    def script(name: str, request: Request) -> Response:
        if name == "fails":
            answering.set()
            assert fail.wait(SECONDS)
            raise EngineDiedError("killed by signal 9")
        return answer(request)

    machines.script = script
    with ThreadPoolExecutor(2) as pool:
        failing = started(pool, a_spec(tmp_path, results, "fails", policy={"engine_restarts": 0}))
        assert answering.wait(SECONDS)
        waiting = started(pool, a_spec(tmp_path, results, "waits"))
        until(lambda: any(run["campaign"] == "waits" for run in open_store(results).campaigns()), SECONDS)
        threading.Event().wait(3.0)
        built = len(machines.built)
        fail.set()
        with pytest.raises(CampaignFailedError, match="killed by signal 9"):
            failing.result(SECONDS)
        assert len(waiting.result(SECONDS).leaderboard) == 1
    assert (built, len(machines.built)) == (1, 2)
    assert open_storage(results).list("leases") == []


def test_two_models_of_one_campaign_with_one_checkpoint_compute_their_cells_once(
    machines: Machines, tmp_path: Path
) -> None:
    results = str(tmp_path / "results")
    spec = a_spec(tmp_path, results, "twins", benchmarks=[FACTS, ARITHMETIC], fleet={"gpus": 1, "device": "cpu"})
    source = spec["models"][0]
    spec["models"] = [{"model": source, "name": name} for name in ("one", "two")]
    board = campaign(spec).leaderboard
    assert sorted(board["model"].unique()) == ["one", "two"]
    assert len(board) == 4
    assert set(machines.asked.values()) == {1}
