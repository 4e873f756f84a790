"""When an engine is said to be near its end."""

from __future__ import annotations

from core.monitor.tail import Tail


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ten_seconds() -> tuple[Tail, Clock, list[float]]:
    """A tail of ten seconds, its clock, and when it was told."""
    told: list[float] = []
    clock = Clock()
    return Tail(10.0, lambda: told.append(clock.now), clock), clock, told


def run(tail: Tail, clock: Clock, answers: int, seconds: float = 1.0) -> None:
    for _ in range(answers):
        clock.now += seconds
        tail.answered()


def test_it_is_near_when_the_rest_takes_no_longer_and_is_told_once() -> None:
    tail, clock, told = ten_seconds()
    tail.awaited(1)
    tail.begun(100)
    run(tail, clock, 89)
    assert told == []
    run(tail, clock, 11)
    assert told == [90.0]


def test_nothing_is_foretold_while_a_benchmark_may_yet_bring_more() -> None:
    tail, clock, told = ten_seconds()
    tail.awaited(2)
    tail.begun(20)
    run(tail, clock, 15)
    assert told == []
    tail.begun(80)
    run(tail, clock, 74)
    assert told == []
    run(tail, clock, 1)
    assert told == [90.0]


def test_a_benchmark_that_does_not_come_is_waited_for_no_more() -> None:
    tail, clock, told = ten_seconds()
    tail.awaited(2)
    tail.begun(20)
    tail.awaited(-1)
    run(tail, clock, 10)
    assert told == [10.0]


def test_by_itself_it_foretells_nothing() -> None:
    tail = Tail()
    tail.begun(1)
    tail.answered()
