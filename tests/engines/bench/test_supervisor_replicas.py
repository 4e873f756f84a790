"""Several engines behind one. Engines are scripted, but for those whose processes are killed."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from core.errors import EngineDiedError, UserError
from core.request import Generate, Generated, Loglikelihood, Request, Response, Sampling, Scored
from engines.bench.replica import engines_of
from engines.bench.supervisor import IN_FLIGHT, Supervisor
from engines.control import Stop
from engines.engine import Engine, EngineConfig, EngineInfo
from engines.process.engine import ProcessEngine, child_environment
from engines.process.lightweight import LightweightEngine
from tests.engines.conftest import WINDOW
from tests.processes import gone, group_of
from tests.scripted_engine import ScriptedEngine
from tests.waiting import until

Answers = Callable[[Request], Response]


def answer(request: Request) -> Response:
    return Generated(request.id, request.id, "stop", prompt_tokens=3, completion_tokens=2)


def requests(count: int, prefix: str = "") -> list[Request]:
    return [Generate(f"{prefix}{n}", f"prompt {n}", Sampling()) for n in range(count)]


def scripted(*answers: Answers) -> list[ScriptedEngine]:
    return [ScriptedEngine(each) for each in answers]


def opened(engines: Sequence[Engine], in_flight: int = 4) -> Supervisor:
    """All of them loaded."""
    engine = Supervisor(engines, in_flight=in_flight)
    engine.open()
    until(lambda: engine.serving == len(engines))
    return engine


def ids(responses: Iterator[Response]) -> list[str]:
    return sorted(response.id for response in responses)


def once(count: int) -> list[str]:
    return sorted(str(n) for n in range(count))


def dies_after(count: int) -> Answers:
    left = iter(range(count))

    def answers(request: Request) -> Response:
        if next(left, None) is None:
            raise EngineDiedError("killed by SIGKILL")
        return answer(request)

    return answers


class SlowToOpen(ScriptedEngine):
    """Loads until ``go``, or ``fault``."""

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__(answer)
        self.go, self._fault = threading.Event(), fault

    def open(self) -> EngineInfo:
        assert self.go.wait(20)
        if self._fault is not None:
            raise self._fault
        return super().open()

    def close(self, *, keep: bool = True) -> None:
        self._fault = self._fault or EngineDiedError("the engine was closed")
        self.go.set()
        super().close()


def test_every_request_is_answered_once_whoever_does_it() -> None:
    engines = scripted(answer, answer, answer)
    engine = opened(engines)
    assert isinstance(engine, Engine)
    assert ids(engine.run(requests(500))) == once(500)
    assert sorted(id for each in engines for id in each.seen) == once(500)
    assert list(engine.run([])) == []
    engine.close()
    assert [each.closed for each in engines] == [1, 1, 1]


def test_none_idles_while_another_has_a_tail() -> None:
    """The first engine's first answer comes when the other has given all that is not in the first one's hands."""
    others = threading.Event()

    def slow(request: Request) -> Response:
        assert others.wait(20)
        return answer(request)

    engines = scripted(slow, answer)
    engine = opened(engines, in_flight=2)
    stream = engine.run(requests(100))
    early = [next(stream).id for _ in range(98)]
    assert len(engines[1].seen) == 98
    others.set()
    assert sorted([*early, *ids(stream)]) == once(100)


def test_what_a_dead_replica_had_goes_back_to_the_queue(caplog: pytest.LogCaptureFixture) -> None:
    engines = scripted(dies_after(20), answer)
    engine = opened(engines)
    responses = list(engine.run(requests(200)))
    assert ids(iter(responses)) == once(200)
    again = Counter(id for each in engines for id in each.seen)
    assert len([id for id, times in again.items() if times > 1]) <= 4  # in its hands when it died
    assert "a replica is lost, 1 left: killed by SIGKILL" in caplog.text
    assert engines[0].closed == 1
    assert ids(engine.run(requests(50))) == once(50)
    assert engine.size == 1


def test_all_replicas_dead_is_a_dead_engine() -> None:
    engine = opened(scripted(dies_after(10), dies_after(10)))
    with pytest.raises(EngineDiedError, match="all 2 replicas are gone; the last: killed by SIGKILL"):
        list(engine.run(requests(100)))
    with pytest.raises(EngineDiedError, match="all 2 replicas are gone"):
        next(engine.run(requests(1)))


def test_what_dead_engines_had_answered_is_still_yielded() -> None:
    engine = opened(scripted(dies_after(10), dies_after(10)))
    found: list[str] = []

    def collect() -> None:
        for response in engine.run(requests(100)):
            found.append(response.id)

    with pytest.raises(EngineDiedError):
        collect()
    assert len(found) == len(set(found)) == 20


def test_a_request_that_kills_whoever_answers_it_ends_its_run_and_not_all_engines() -> None:
    def fragile(request: Request) -> Response:
        if request.id == "30":
            raise EngineDiedError("out of memory")
        return answer(request)

    engine = opened(scripted(*[fragile] * 5))
    with pytest.raises(EngineDiedError, match="out of memory"):
        list(engine.run(requests(100)))
    until(lambda: engine.size == 2)
    assert ids(engine.run(requests(20))) == once(20)


def test_an_engine_that_leaves_requests_unanswered_counts_as_dead() -> None:
    class Forgetful(ScriptedEngine):
        def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
            return super().run(requests[1:], stop)

    engine = opened([Forgetful(answer), ScriptedEngine(answer)])
    assert ids(engine.run(requests(60))) == once(60)
    assert engine.size == 1


def test_a_fault_of_ours_reaches_the_caller_and_costs_no_engine() -> None:
    def faulty(request: Request) -> Response:
        raise ZeroDivisionError(request.id)

    engines = scripted(faulty, faulty)
    engine = opened(engines)
    with pytest.raises(ZeroDivisionError):
        list(engine.run(requests(20)))
    assert engine.size == 2


def test_stop_ends_a_run_with_what_was_finished() -> None:
    stop = Stop()

    def stops(request: Request) -> Response:
        if request.id == "9":
            stop.set()
        return answer(request)

    engine = opened(scripted(stops, stops))
    found = ids(engine.run(requests(1000), stop))
    assert "9" in found
    assert 1 <= len(found) < 200
    assert ids(engine.run(requests(40))) == once(40)
    assert list(engine.run(requests(5), stop)) == []


def test_a_caller_that_stops_early_leaves_nothing_in_flight() -> None:
    engines = scripted(answer, answer)
    engine = opened(engines)
    stream = engine.run(requests(100_000))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert ids(engine.run(requests(40))) == once(40)
    assert sum(len(each.seen) for each in engines) < 100_000


def test_concurrent_runs_get_their_own_answers() -> None:
    engine = opened(scripted(answer, answer, dies_after(50)))
    found: dict[str, list[str]] = {}

    def work(name: str) -> None:
        found[name] = ids(engine.run(requests(300, name)))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: sorted(f"{name}{n}" for n in range(300)) for name in "abc"}


def test_choices_of_a_question_go_to_one_engine() -> None:
    def score(request: Request) -> Response:
        return Scored(request.id, -1.0, False, 1, 1)

    engines = scripted(score, score, score)
    engine = opened(engines)
    choices = [Loglikelihood(f"{n}/{c}", f"question {n}", f" {c}") for n in range(100) for c in range(5)]
    assert len(list(engine.run(choices))) == 500
    where = [{id.split("/")[0] for id in each.seen} for each in engines]
    assert not where[0] & where[1] | where[1] & where[2] | where[0] & where[2]


def test_a_replica_that_does_not_open_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    failing, fine = SlowToOpen(EngineDiedError("no such GPU")), ScriptedEngine(answer)
    engine = Supervisor([failing, fine], in_flight=IN_FLIGHT)
    assert engine.open().engine == "scripted"
    failing.go.set()
    until(lambda: engine.is_gone(failing))
    assert "a replica is lost, 1 left: no such GPU" in caplog.text
    assert ids(engine.run(requests(20))) == once(20)


def test_where_none_opens_the_reason_is_what_a_person_can_mend() -> None:
    died, refused = SlowToOpen(EngineDiedError("no such GPU")), SlowToOpen(UserError("vllm.foo: no such argument"))
    for each in (died, refused):
        each.go.set()
    engine = Supervisor([died, refused], in_flight=IN_FLIGHT)
    with pytest.raises(UserError, match="no such argument"):
        engine.open()
    with pytest.raises(EngineDiedError):
        next(engine.run(requests(1)))


def test_a_replica_that_loads_slowly_takes_part_from_then_on() -> None:
    late, holding = SlowToOpen(), threading.Event()

    def waits(request: Request) -> Response:
        assert holding.wait(20)
        return answer(request)

    engine = Supervisor([ScriptedEngine(waits), late], in_flight=4)
    engine.open()
    stream = engine.run(requests(100))
    late.go.set()
    first = next(stream).id
    assert first in late.seen
    holding.set()
    assert sorted([first, *ids(stream)]) == once(100)
    assert engine.used == 2


def test_a_replica_that_is_not_like_the_others_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    engine = opened([ScriptedEngine(answer)])
    other = ScriptedEngine(answer, max_model_len=1024)
    engine.add(other)
    until(lambda: engine.is_gone(other))
    assert "its max_model_len is 1024, and 2048 in the others" in caplog.text
    assert ids(engine.run(requests(20))) == once(20)
    assert other.seen == []


def test_one_that_joins_takes_from_runs_under_way_and_one_that_retires_answers_what_it_has() -> None:
    begun, holding = threading.Event(), threading.Event()

    def waits(request: Request) -> Response:
        begun.set()
        assert holding.wait(20)
        return answer(request)

    first, extra = ScriptedEngine(answer), ScriptedEngine(waits)
    engine = opened([first])
    assert engine.retire() is None  # the only one stays
    gate = threading.Event()
    paced = requests(400)

    def work() -> None:
        for response in engine.run(paced):
            found.append(response.id)
            if len(found) == 100:
                assert gate.wait(20)  # the caller lags; engines go on

    found: list[str] = []
    first_answers, first._answers = first._answers, waits
    thread = threading.Thread(target=work)
    thread.start()
    engine.add(extra)
    until(lambda: engine.serving == 2 and begun.is_set())
    first._answers = first_answers
    assert engine.retire() is extra
    assert engine.size == 1
    assert not engine.is_gone(extra)  # it has answers to give
    holding.set()
    gate.set()
    thread.join(20)
    assert sorted(found) == once(400)
    until(lambda: engine.is_gone(extra))
    assert extra.closed == 1


def test_one_that_loads_may_retire_too() -> None:
    late = SlowToOpen()
    engine = opened([ScriptedEngine(answer)])
    engine.add(late)
    assert engine.retire()
    until(lambda: engine.is_gone(late))
    assert ids(engine.run(requests(20))) == once(20)


def test_one_about_to_leave_stays_where_the_others_die() -> None:
    begun, holding = threading.Event(), threading.Event()

    def waits(request: Request) -> Response:
        begun.set()
        assert holding.wait(20)
        return answer(request)

    def dies(request: Request) -> Response:
        assert begun.wait(20)
        assert holding.wait(20)
        raise EngineDiedError("killed by SIGKILL")

    engine = opened(scripted(dies, waits))
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(ids(engine.run(requests(100)))))
    thread.start()
    until(begun.is_set)
    assert engine.retire()
    holding.set()
    thread.join(20)
    assert found == once(100)


def test_closing_while_it_loads_ends_open() -> None:
    engine = Supervisor([SlowToOpen(), SlowToOpen()], in_flight=IN_FLIGHT)
    failures: list[Exception] = []

    def load() -> None:
        try:
            engine.open()
        except EngineDiedError as error:
            failures.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    engine.close()
    thread.join(20)
    assert "closed" in str(failures[0])
    engine.close()
    with pytest.raises(EngineDiedError, match="closed"):
        engine.add(ScriptedEngine(answer))


def test_closing_while_it_runs_is_no_silent_end() -> None:
    begun = threading.Event()

    def slow(request: Request) -> Response:
        begun.set()
        threading.Event().wait(0.01)
        return answer(request)

    engine = opened(scripted(slow, slow))
    failures: list[Exception] = []

    def work() -> None:
        try:
            list(engine.run(requests(10_000)))
        except EngineDiedError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(20)
    engine.close()
    thread.join(20)
    assert len(failures) == 1


def test_figures_of_all_engines_are_added_up() -> None:
    engines = scripted(answer, answer)
    engine = opened(engines)
    list(engine.run(requests(100)))
    stats = engine.stats()
    assert (stats["prompt_tokens"], stats["generation_tokens"]) == (300, 200)
    assert "pid" not in stats
    assert "ended" not in stats
    assert engines_of(engine) == tuple(engines)
    engine.close()
    assert stats["started"] <= engine.stats()["ended"]


class ScriptedProcess(ProcessEngine):
    def __init__(self, seconds: float) -> None:
        environment = child_environment(os.environ)
        super().__init__(
            "scripted",
            "tests.engines.scripted_process",
            seconds,
            model="scripted",
            environment=environment,
            close_seconds=5.0,
            orderly_while_loading=False,
        )


def kill_in_the_middle(engines: Sequence[ProcessEngine], asked: Sequence[Request]) -> list[str]:
    """Ids of all responses, with the first engine's process killed once it has answered something."""
    engine = Supervisor(engines, in_flight=32)
    engine.open()
    until(lambda: engine.serving == len(engines), seconds=120)
    group = group_of(int(engines[0].stats()["pid"]))
    found: list[str] = []
    for response in engine.run(asked):
        found.append(response.id)
        if len(found) == len(asked) // 4:
            os.kill(int(engines[0].stats()["pid"]), signal.SIGKILL)
    assert engine.used == len(engines)
    assert engine.size == len(engines) - 1
    assert gone(group, 20)
    engine.close()
    return sorted(found)


def test_a_killed_process_costs_no_answer() -> None:
    engines = [ScriptedProcess(0.002), ScriptedProcess(0.002)]
    assert kill_in_the_middle(engines, requests(400)) == once(400)


@pytest.mark.vllm
@pytest.mark.slow
def test_a_killed_vllm_costs_no_answer(smollm2: Path) -> None:
    def config(device: int) -> EngineConfig:
        return EngineConfig(
            model=str(smollm2),
            max_model_len=WINDOW,
            device="cpu",
            gpu_memory_gb=3,
            devices=(device,),
            cores=(device,),
        )

    engines = [LightweightEngine(config(device)) for device in range(2)]
    sampling = Sampling(max_tokens=16, extra={"ignore_eos": True})
    asked: list[Request] = [Generate(str(n), f"Number {n} is", sampling) for n in range(200)]
    asked += [Loglikelihood(str(200 + n), f"Number {n // 4} is", f" {n % 4}") for n in range(200)]
    assert kill_in_the_middle(engines, asked) == once(400)
