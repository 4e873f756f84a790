"""An engine that is started again: what dies is scripted, but for the process that is killed."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engines.process.engine
from core.errors import EngineDiedError
from core.planning.ladder import EngineFault, Step, kind_of
from core.request import Generate, Generated, Request, Response, Sampling
from engines.bench.replica import POISON
from engines.bench.supervisor import Supervisor
from engines.control import Stop
from engines.engine import Engine, EngineInfo
from engines.process.child import oom_kills
from engines.process.engine import ProcessEngine, child_environment
from tests.processes import gone, group_of
from tests.scripted_engine import ScriptedEngine

DEATH = EngineDiedError("killed by SIGKILL")


def answer(request: Request) -> Response:
    return Generated(request.id, request.id, "stop", prompt_tokens=3, completion_tokens=2)


def requests(count: int, prefix: str = "") -> list[Request]:
    return [Generate(f"{prefix}{n}", f"prompt {n}", Sampling()) for n in range(count)]


class Dying(ScriptedEngine):
    """Dies, once for all its runs, as soon as ``fault`` says so of a request."""

    def __init__(self, fault: Callable[[Request], Exception | None]) -> None:
        super().__init__(answer)
        self._fault = fault

    def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
        for request in requests:
            if (fault := self._fault(request)) is not None:
                self._running = False
                raise fault
            yield from super().run([request], stop)


class Scene:
    """A recovering engine over scripted ones, and what became of it."""

    def __init__(self, fault: Callable[[Request], Exception | None], *, restarts: int = 3, **more: Any) -> None:
        self.fault, self.restarts = fault, restarts
        self.built: list[Dying] = []
        self.options: list[Mapping[str, Any]] = []
        self.faults: list[EngineFault] = []
        self.engine = Supervisor([self.build], self.decide, stall_seconds=more.pop("stall_seconds", 600), **more)

    def build(self, options: Mapping[str, Any]) -> Engine:
        self.options.append(options)
        self.built.append(Dying(self.fault))
        return self.built[-1]

    def decide(self, fault: EngineFault) -> Step:
        self.faults.append(fault)
        if fault.suspects or fault.found:
            return Step("isolate", "asked apart")
        plain = sum(not (each.suspects or each.found) for each in self.faults)
        return (
            Step("restart", "again", {"max_num_seqs": plain}) if plain <= self.restarts else Step("give up", "enough")
        )

    @property
    def seen(self) -> list[str]:
        return [id for engine in self.built for id in engine.seen]


def once(*at: int) -> Callable[[Request], Exception | None]:
    """Die at the requests that come at these places of the order in which all are asked."""
    places, count, lock = set(at), iter(range(10**6)), threading.Lock()

    def fault(request: Request) -> Exception | None:
        with lock:
            return DEATH if next(count) in places else None

    return fault


def test_only_what_was_not_answered_is_asked_again() -> None:
    scene = Scene(once(30))
    assert isinstance(scene.engine, Engine)
    scene.engine.open()
    assert [response.id for response in scene.engine.run(requests(100))] == [str(n) for n in range(100)]
    assert scene.seen == [str(n) for n in range(100)]
    assert [engine.opened for engine in scene.built] == [1, 1]
    assert scene.built[0].closed == 1
    assert scene.options == [{}, {"max_num_seqs": 1}]
    assert [(fault.kind, fault.loading, fault.suspects) for fault in scene.faults] == [("death", False, 0)]


def test_runs_side_by_side_are_all_repeated_after_one_death() -> None:
    scene = Scene(once(50))
    scene.engine.open()
    with ThreadPoolExecutor(3) as pool:
        streams = pool.map(lambda name: [r.id for r in scene.engine.run(requests(60, name))], "abc")
        for name, ids in zip("abc", streams, strict=True):
            assert sorted(ids) == sorted(f"{name}{n}" for n in range(60))
    assert len(scene.built) == 2
    assert set(Counter(scene.seen).values()) == {1}


def test_at_the_end_of_its_advice_every_run_raises() -> None:
    scene = Scene(lambda request: DEATH, restarts=0)
    scene.engine.open()
    with pytest.raises(EngineDiedError, match="killed by SIGKILL\ngiven up: enough"):
        list(scene.engine.run(requests(5)))
    with pytest.raises(EngineDiedError, match="given up"):
        list(scene.engine.run(requests(5)))
    assert scene.built[0].closed == 1


@settings(max_examples=40)
@given(st.integers(1, 120), st.data(), st.integers(1, 3))
def test_exactly_the_requests_that_kill_are_left_out(count: int, data: st.DataObject, runs: int) -> None:
    poison = data.draw(st.sets(st.integers(0, count - 1).map(str), max_size=3))
    scene = Scene(lambda request: DEATH if request.id[1:] in poison and request.id[0] == "a" else None, restarts=50)
    scene.engine.open()
    with ThreadPoolExecutor(runs) as pool:
        streams = list(pool.map(lambda name: list(scene.engine.run(requests(count, name))), "abc"[:runs]))
    responses = [response for stream in streams for response in stream]
    assert len(responses) == len({response.id for response in responses}) == runs * count
    wrong = {response.id[1:] for response in responses if response.error is not None}
    assert wrong == poison
    assert all((response.error or POISON).startswith(POISON) for response in responses)
    assert len(scene.seen) == len(set(scene.seen)) == runs * count - len(poison)
    scene.engine.close()


def test_an_engine_that_does_not_load_is_loaded_again() -> None:
    class Shy(Scene):
        def build(self, options: Mapping[str, Any]) -> Engine:
            engine = super().build(options)
            if len(self.built) < 3:
                engine.open = lambda: (_ for _ in ()).throw(DEATH)  # type: ignore[method-assign]
            return engine

    scene = Shy(lambda request: None)
    assert scene.engine.open().engine == "scripted"
    assert [fault.loading for fault in scene.faults] == [True, True]
    assert len(list(scene.engine.run(requests(3)))) == 3
    never = Shy(lambda request: None, restarts=1)
    with pytest.raises(EngineDiedError, match="given up: enough"):
        never.engine.open()


def test_an_engine_that_cannot_be_made_is_made_again() -> None:
    class Lost(Scene):
        def build(self, options: Mapping[str, Any]) -> Engine:
            if len(self.faults) == 1:
                raise EngineDiedError("local Ray cluster cpu-0: its keeper cannot be reached")
            return super().build(options)

    scene = Lost(once(5))
    scene.engine.open()
    assert len(list(scene.engine.run(requests(20)))) == 20
    assert [fault.loading for fault in scene.faults] == [False, True]


class Hanging(ScriptedEngine):
    """Answers two requests, then nothing until it is closed."""

    def __init__(self, hangs: bool) -> None:
        super().__init__(answer)
        self._hangs, self.closing, self.hanging = hangs, threading.Event(), threading.Event()

    def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
        yield from super().run(requests[:2] if self._hangs else requests, stop)
        if self._hangs:
            self.hanging.set()
            assert self.closing.wait(60)
            raise EngineDiedError("the engine was closed")

    def close(self, *, keep: bool = True) -> None:
        super().close(keep=keep)
        self.closing.set()


def hanging(**more: Any) -> tuple[Supervisor, list[Hanging], list[EngineFault]]:
    built: list[Hanging] = []
    faults: list[EngineFault] = []

    def build(options: Mapping[str, Any]) -> Engine:
        built.append(Hanging(hangs=not built))
        return built[-1]

    def decide(fault: EngineFault) -> Step:
        faults.append(fault)
        return Step("restart", "again")

    return Supervisor([build], decide, **more), built, faults


def test_an_engine_that_makes_no_token_while_requests_wait_is_ended_and_started_again() -> None:
    now = [0.0]
    engine, built, faults = hanging(stall_seconds=600, clock=lambda: now[0])
    engine.open()
    now[0] = 10_000
    engine.look()  # nothing is asked of it
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(lambda: [response.id for response in engine.run(requests(5))])
        assert built[0].hanging.wait(60)
        engine.look()
        now[0] += 599
        engine.look()
        assert not built[0].closing.is_set()
        now[0] += 1
        engine.look()
        assert answers.result(60) == ["0", "1", "2", "3", "4"]
    assert [(fault.kind, fault.message) for fault in faults] == [
        ("stall", "no token for 10 minutes while requests wait (policy.stall_minutes)")
    ]
    engine.close()


def test_the_watch_looks_by_itself() -> None:
    engine, _, faults = hanging(stall_seconds=0.2)
    engine.open()
    assert len(list(engine.run(requests(5)))) == 5
    assert [fault.kind for fault in faults] == ["stall"]
    engine.close()


class Slow(Scene):
    """Its second engine has ``began`` to be built, and is there once it may ``go`` on."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.began, self.go = threading.Event(), threading.Event()

    def build(self, options: Mapping[str, Any]) -> Engine:
        if self.built:
            self.began.set()
            assert self.go.wait(60)
        return super().build(options)


def test_a_stop_ends_a_run_that_waits_for_the_engine() -> None:
    scene, stop = Slow(once(5)), Stop()
    scene.engine.open()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: list(scene.engine.run(requests(20, "a"))))
        assert scene.began.wait(60)
        second = pool.submit(lambda: list(scene.engine.run(requests(20, "b"), stop)))
        stop.set()
        assert second.result(60) == []
        scene.go.set()
        assert len(first.result(60)) == 20


def test_closing_ends_what_waits_for_a_new_engine() -> None:
    scene = Slow(once(5))
    scene.engine.open()
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(lambda: list(scene.engine.run(requests(20))))
        assert scene.began.wait(60)
        scene.engine.close()
        scene.go.set()
        with pytest.raises(EngineDiedError, match="closed"):
            answers.result(60)
    assert [engine.opened for engine in scene.built] == [1, 0]
    assert scene.built[0].closed


def test_another_model_than_before_answers_nothing() -> None:
    class Changing(Scene):
        def build(self, options: Mapping[str, Any]) -> Engine:
            engine = super().build(options)
            if len(self.built) > 1:
                engine.open = lambda: EngineInfo("scripted", "0", 99, "float32", load_seconds=0.0)  # type: ignore[method-assign]
            return engine

    scene = Changing(once(5))
    scene.engine.open()
    with pytest.raises(EngineDiedError, match="max_model_len is 99, and was 2048 before"):
        list(scene.engine.run(requests(20)))


def in_a_process() -> ProcessEngine:
    return ProcessEngine(
        "scripted",
        "tests.engines.scripted_process",
        0.001,
        model="m",
        environment=child_environment(os.environ),
        close_seconds=5,
        orderly_while_loading=True,
    )


def test_what_the_kernel_kills_for_want_of_memory_counts_as_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = tmp_path / "vmstat"
    counts.write_text("pgfault 17\noom_kill 3\n")
    assert oom_kills(counts) == 3
    assert oom_kills(tmp_path / "nowhere") == 0
    monkeypatch.setattr(engines.process.engine, "oom_kills", lambda: oom_kills(counts))
    for after, kind in ((3, "death"), (4, "memory")):
        engine = in_a_process()
        pid = engine.open().detail["pid"]
        counts.write_text(f"oom_kill {after}\n")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineDiedError) as died:
            list(engine.run(requests(3)))
        assert kind_of(str(died.value), loading=False) == kind
        engine.close()


def test_a_killed_process_costs_no_answer() -> None:
    built: list[ProcessEngine] = []

    def build(options: Mapping[str, Any]) -> Engine:
        built.append(in_a_process())
        return built[-1]

    engine = Supervisor([build], lambda fault: Step("restart", fault.message), stall_seconds=600)
    pid = engine.open().detail["pid"]
    processes = group_of(pid)
    answered = []
    for response in engine.run(requests(300)):
        answered.append(response.id)
        if len(answered) == 50:
            os.killpg(pid, signal.SIGKILL)
    assert sorted(answered) == sorted(str(n) for n in range(300))
    assert len(built) == 2
    assert gone(processes, 5)
    engine.close()
