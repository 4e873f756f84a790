"""Feeding an engine and storing what it says: time-outs, pauses and cancellation. The engine is scripted."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.benchmark.benchmark import load_benchmark
from core.campaign import BenchmarkSpec
from core.cell_work import CellWork
from core.errors import EngineDiedError, SteelyardError
from core.monitor.progress import Progress
from core.request import Generated, Request, Response
from core.results import open_store
from core.sample import Cell
from engines.bench.answering import Answering, commit, run_cell
from engines.control import CancelledByUserError, Control
from tests.core.store_parts import make_scoring
from tests.scripted_engine import ScriptedEngine

LIMIT = 8
FINGERPRINT = "0" * 64


def answer(request: Request) -> Response:
    return Generated(request.id, " 4", "stop", prompt_tokens=5, completion_tokens=1)


def work(**changes: Any) -> CellWork:
    benchmark = load_benchmark(BenchmarkSpec(name="steelyard_arithmetic", limit=LIMIT), chat=None, seed=1)
    return CellWork(Cell(FINGERPRINT, "m", benchmark.label, {}), benchmark, complete=False, **changes)


def opened(answers: Callable[[Request], Response]) -> ScriptedEngine:
    engine = ScriptedEngine(answers)
    engine.open()
    return engine


@pytest.fixture
def results(tmp_path: Path) -> str:
    return str(tmp_path / "results")


def silent(progress: Progress) -> None:
    """Nobody listens."""


def test_progress_is_told_up_to_the_end(results: str) -> None:
    told: list[Progress] = []
    run_cell(Answering(opened(answer), results, Control()), work(), told.append)
    assert told[-1].done == told[-1].docs == LIMIT
    assert told[-1].ended
    assert told[-1].tokens == 6 * LIMIT


def test_a_paused_model_asks_nothing_until_it_is_resumed_and_nothing_twice(results: str) -> None:
    control, paused = Control(), threading.Event()

    def pauses_in_the_middle(request: Request) -> Response:
        if len(engine.seen) == 3:
            control.pause()
            paused.set()
        return answer(request)

    engine = opened(pauses_in_the_middle)
    outcome: list[Any] = []
    thread = threading.Thread(
        target=lambda: outcome.append(run_cell(Answering(engine, results, control), work(), silent))
    )
    thread.start()
    assert paused.wait(30)
    thread.join(0.3)
    assert thread.is_alive()
    assert len(engine.seen) == 3
    control.resume()
    thread.join(30)
    assert len(outcome[0].responses) == LIMIT
    assert len(engine.seen) == len(set(engine.seen)) == LIMIT


def test_a_cancelled_model_keeps_what_it_answered(results: str) -> None:
    control = Control()

    def cancels(request: Request) -> Response:
        if len(engine.seen) == 3:
            control.cancel()
        return answer(request)

    engine = opened(cancels)
    with pytest.raises(CancelledByUserError, match="stored"):
        run_cell(Answering(engine, results, control), work(), silent)
    assert len(open_store(results).responses(FINGERPRINT)) == 3


def test_a_benchmark_whose_time_is_over_fails_and_keeps_what_it_answered(results: str) -> None:
    over = threading.Event()

    def hangs(request: Request) -> Response:
        if len(engine.seen) == 3:
            over.wait(1.0)
        return answer(request)

    engine = opened(hangs)
    with pytest.raises(SteelyardError, match=r"timeout_seconds = 0\.5 are over with 5 of 8 requests to go"):
        run_cell(Answering(engine, results, Control()), work(timeout_seconds=0.5), silent)
    assert len(open_store(results).responses(FINGERPRINT)) == 3
    run = run_cell(Answering(opened(answer), results, Control()), work(timeout_seconds=60), silent)
    assert run.resumed == 3


def test_an_engine_that_leaves_requests_unanswered_is_named(results: str) -> None:
    class Forgetful(ScriptedEngine):
        def run(self, *arguments: Any) -> Any:
            yield from list(super().run(*arguments))[:-1]

    engine = Forgetful(answer)
    engine.open()
    with pytest.raises(EngineDiedError, match="1 of 8 requests were not answered"):
        run_cell(Answering(engine, results, Control()), work(), silent)


def test_what_another_cell_was_answered_is_not_asked_again(results: str) -> None:
    """Its answers are to the same requests; it was cut short before the last one."""

    class Short(ScriptedEngine):
        def run(self, *arguments: Any) -> Any:
            yield from list(super().run(*arguments))[:-1]

    first = Short(answer)
    first.open()
    asked, about = "a" * 64, {"engine": "lightweight"}
    with pytest.raises(EngineDiedError):
        run_cell(Answering(first, results, Control(), about=about), work(asked=asked), silent)
    assert open_store(results).cells_asking(asked) == {FINGERPRINT: about}
    other = replace(work(asked=asked), cell=Cell("1" * 64, "m", "steelyard_arithmetic", {}))
    engine = opened(answer)
    run = run_cell(Answering(engine, results, Control()), other, silent)
    assert (len(engine.seen), run.resumed, len(run.responses)) == (1, LIMIT - 1, LIMIT)
    apart = opened(answer)
    run_cell(
        Answering(apart, results, Control()),
        replace(other, asked="b" * 64, cell=replace(other.cell, fingerprint="2" * 64)),
        silent,
    )
    assert len(apart.seen) == LIMIT


def test_the_record_keeps_what_groups_the_benchmarks_docs(results: str) -> None:
    on = Answering(opened(answer), results, Control())
    asyncio.run(commit(on, work(cluster="question"), make_scoring(), {"seconds": 1.0}))
    record = open_store(results).commit_record(FINGERPRINT)
    assert record is not None
    assert record["metadata"] == {"seconds": 1.0, "cluster": "question"}
    assert open_store(results).leaderboard()["cluster"].tolist() == ["question"]
