"""Several engines that are each started again where they die. Engines are scripted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import EngineDiedError
from core.planning.ladder import EngineFault, Step
from core.request import Generate, Generated, Request, Response, Sampling
from engines.bench.replica import POISON, Build
from engines.bench.supervisor import Supervisor
from tests.scripted_engine import ScriptedEngine
from tests.waiting import until

Answers = Callable[[Request], Response]


def answer(request: Request) -> Response:
    return Generated(request.id, request.id, "stop", prompt_tokens=3, completion_tokens=2)


def requests(count: int, prefix: str = "") -> list[Request]:
    return [Generate(f"{prefix}{n}", f"prompt {n}", Sampling()) for n in range(count)]


class Mortal(ScriptedEngine):
    """Dies for all its runs with what its answers raise."""

    def __init__(self, answers: Answers) -> None:
        def dies(request: Request) -> Response:
            try:
                return answers(request)
            except EngineDiedError:
                self._running = False
                raise

        super().__init__(dies)


class Scene:
    """Replicas whose engines answer with ``answers`` of their place and of how many stood there before."""

    def __init__(
        self, count: int, answers: Callable[[int, int], Answers], restarts: int = 50, in_flight: int | None = 4
    ) -> None:
        self.built: list[list[Mortal]] = [[] for _ in range(count)]
        self.faults: list[EngineFault] = []
        self.answers, self.restarts = answers, restarts
        self.leaving: Any = None
        self.engine = Supervisor([self.source(place) for place in range(count)], self.decide, in_flight=in_flight)
        self.engine.open()
        until(lambda: self.engine.serving == count)

    def source(self, place: int) -> Build:
        def build(options: Mapping[str, Any]) -> Mortal:
            self.built[place].append(Mortal(self.answers(place, len(self.built[place]))))
            return self.built[place][-1]

        return build

    def decide(self, fault: EngineFault) -> Step:
        self.faults.append(fault)
        if fault.suspects or fault.found:
            return Step("isolate", "asked apart")
        return Step("restart", "again") if len(self.faults) <= self.restarts else Step("give up", "enough")

    @property
    def seen(self) -> list[str]:
        return [id for place in self.built for engine in place for id in engine.seen]


def dies(request: Request) -> Response:
    raise EngineDiedError("killed by SIGKILL")


def test_others_answer_what_a_dead_engine_had_while_it_is_started_again() -> None:
    go = threading.Event()

    def answers(place: int, before: int) -> Answers:
        if place == 0 and before:
            assert go.wait(20)
        return dies if place == 0 and not before else answer

    scene = Scene(2, answers)
    found = list(scene.engine.run(requests(100)))
    assert sorted(response.id for response in found) == sorted(str(n) for n in range(100))
    assert not any(response.error for response in found)
    assert scene.engine.size == 2  # the first is on its way
    assert [len(place) for place in scene.built] == [1, 1]
    go.set()
    until(lambda: len(scene.built[0]) == 2 and scene.built[0][1].opened == 1)
    assert len(list(scene.engine.run(requests(100, "again ")))) == 100
    until(lambda: bool(scene.built[0][1].seen))
    assert scene.built[0][0].closed == 1
    assert [(fault.loading, fault.suspects) for fault in scene.faults] == [(False, 0)]
    scene.engine.close()


def test_others_go_on_while_one_isolates() -> None:
    """All but the poison is answered, and no replica is lost."""

    def fragile(request: Request) -> Response:
        return dies(request) if request.id == "30" else answer(request)

    scene = Scene(3, lambda place, before: fragile, restarts=2)
    found = {response.id: response.error for response in scene.engine.run(requests(300))}
    assert len(found) == 300
    assert [id for id, error in found.items() if error] == ["30"]
    assert str(found["30"]).startswith(POISON)
    assert scene.engine.size == 3
    assert scene.faults[-1].found == "30"
    scene.engine.close()


@settings(max_examples=25)
@given(st.integers(1, 100), st.data(), st.integers(1, 3), st.integers(1, 3))
def test_exactly_the_requests_that_kill_are_left_out(count: int, data: st.DataObject, runs: int, replicas: int) -> None:
    poison = data.draw(st.sets(st.integers(0, count - 1).map(lambda n: f"a{n}"), max_size=3))
    scene = Scene(replicas, lambda place, before: lambda request: (dies if request.id in poison else answer)(request))
    with ThreadPoolExecutor(runs) as pool:
        streams = list(pool.map(lambda name: list(scene.engine.run(requests(count, name))), "abc"[:runs]))
    responses = [response for stream in streams for response in stream]
    assert len(responses) == len({response.id for response in responses}) == runs * count
    assert {response.id for response in responses if response.error is not None} == poison
    assert all(times == 1 for id, times in Counter(scene.seen).items() if id not in poison)
    scene.engine.close()


def test_a_replica_at_the_end_of_its_advice_is_lost_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(2, lambda place, before: answer if place else dies, restarts=0)
    assert len(list(scene.engine.run(requests(50)))) == 50
    until(lambda: scene.engine.size == 1)
    assert "a replica is lost, 1 left: killed by SIGKILL\ngiven up: enough" in caplog.text
    assert len(scene.built[0]) == 1
    scene.engine.close()


def test_one_that_is_started_again_may_retire() -> None:
    began, go = threading.Event(), threading.Event()

    def answers(place: int, before: int) -> Answers:
        if place == 1 and before:
            began.set()
            assert go.wait(20)
        return dies if place == 1 and not before else answer

    scene = Scene(2, answers)
    assert len(list(scene.engine.run(requests(50)))) == 50
    assert began.wait(20)
    leaving = scene.engine.retire()
    assert leaving is not None
    until(lambda: scene.engine.is_gone(leaving))
    go.set()
    assert len(list(scene.engine.run(requests(50, "again ")))) == 50
    assert [engine.opened for engine in scene.built[1]] in ([1], [1, 0])
    scene.engine.close()


def test_a_caller_that_leaves_with_a_poison_request_found_holds_nobody_up() -> None:
    """It was handed what to ask next beside that, and asks no more."""

    def fragile(request: Request) -> Response:
        return dies(request) if request.id == "a0" else answer(request)

    scene = Scene(1, lambda place, before: fragile, in_flight=None)
    stream = scene.engine.run(requests(40, "a"))
    assert next(stream).error is not None
    stream.close()  # type: ignore[attr-defined]
    assert len(list(scene.engine.run(requests(40, "b")))) == 40
    scene.engine.close()


def test_one_that_retires_while_it_is_decided_about_gives_back_what_it_had() -> None:
    retired = threading.Event()

    def answers(place: int, before: int) -> Answers:
        def fragile(request: Request) -> Response:
            assert place or retired.wait(20)
            return dies(request) if request.id == "30" else answer(request)

        return fragile

    class Retiring(Scene):
        def decide(self, fault: EngineFault) -> Step:
            if fault.found and not retired.is_set():
                self.leaving = self.engine.retire()
                until(lambda: self.engine.is_gone(self.leaving))
                retired.set()
            return super().decide(fault)

    scene = Retiring(2, answers)
    found = {response.id: response.error for response in scene.engine.run(requests(100))}
    assert len(found) == 100
    assert [id for id, error in found.items() if error] == ["30"]
    assert scene.leaving is not None
    assert scene.engine.size == 1
    scene.engine.close()
