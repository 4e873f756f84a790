"""Dealing requests out, without engines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.model.sizing import weight
from core.request import Generate, Loglikelihood, Request, Sampling, Scored
from engines.bench.dealing import TOGETHER, DealtRun, Portion, Taker, deal, portion_size


def scores(count: int, choices: int = 4) -> list[Request]:
    return [Loglikelihood(f"{n}/{c}", f"question {n}", f" {c}") for n in range(count) for c in range(choices)]


def generations(count: int) -> list[Request]:
    return [Generate(str(n), f"prompt {n}", Sampling()) for n in range(count)]


def ids(portions: list[Portion[Taker]]) -> list[str]:
    return [request.id for portion in portions for request in portion.requests]


def test_what_fits_goes_out_at_once_and_evenly() -> None:
    takers, run = [Taker() for _ in range(4)], DealtRun(generations(100))
    dealt = deal(takers, [run], capacity=1024)
    assert ids(dealt) == [str(n) for n in range(100)]
    assert [taker.load for taker in takers] == [100] * 4
    assert max(len(portion.requests) for portion in dealt) <= 7  # each gets parts of every stretch
    assert run.waiting == 0


def test_nobody_holds_more_than_it_can_work_on() -> None:
    takers, run = [Taker() for _ in range(2)], DealtRun(generations(1000))
    deal(takers, [run], capacity=256)
    assert [taker.load for taker in takers] == [256, 256]
    assert run.waiting == 4000 - 512


def test_a_questions_choices_stay_together() -> None:
    dealt = deal([Taker(), Taker(), Taker()], [DealtRun(scores(50, choices=7))], capacity=64)
    for portion in dealt:
        assert len(portion.requests) % 7 == 0


def test_a_question_of_endless_choices_does_not() -> None:
    dealt = deal([Taker(), Taker()], [DealtRun(scores(1, choices=1000))], capacity=64)
    assert max(len(portion.requests) for portion in dealt) <= 16 + TOGETHER


def test_long_generations_go_first_whichever_run_came_first() -> None:
    long: list[Request] = [Generate(f"l{n}", "prompt", Sampling(max_tokens=4000)) for n in range(8)]
    dealt = deal([Taker(), Taker()], [DealtRun(scores(20)), DealtRun(generations(8)), DealtRun(long)], capacity=1024)
    assert [id[0] == "l" for id in ids(dealt)] == [True] * 8 + [False] * 88
    assert [len(id.split("/")) for id in ids(dealt)[8:]] == [1] * 8 + [2] * 80


def test_equal_runs_share_alike_whichever_came_first() -> None:
    runs = [DealtRun(generations(1000)), DealtRun(generations(1000))]
    deal([Taker(), Taker()], runs, capacity=256)
    assert abs(runs[0].in_flight - runs[1].in_flight) <= 64


def test_what_is_given_back_comes_first_and_its_returns_are_counted() -> None:
    run = DealtRun(generations(10))
    first = run.take(8)
    assert [request.id for request in first] == ["0", "1"]
    assert run.give_back(first) == 1
    again = run.take(8)
    assert [request.id for request in again] == ["0", "1"]
    run.answer(again[0], Scored("0", 0.0, False, 1, 1))
    assert run.give_back(again[1:]) == 2
    assert (run.waiting, run.left) == (36, 36)


def test_a_run_ends_only_when_nothing_more_can_come() -> None:
    run = DealtRun([])
    run.settle()
    assert run.inbox.get_nowait() is None
    lost = DealtRun(generations(1))
    lost.take(4)
    lost.settle()
    assert lost.inbox.get_nowait() is None
    assert "ids unique" in str(lost.error)


@given(
    counts=st.lists(st.integers(0, 60), max_size=3),
    takers=st.integers(1, 5),
    capacity=st.integers(4, 64),
    choices=st.integers(1, 9),
    data=st.data(),
)
def test_every_request_is_dealt_once_and_nobody_idles_while_something_waits(
    counts: list[int], takers: int, capacity: int, choices: int, data: st.DataObject
) -> None:
    """Portions end in any order, and now and then one is given back."""
    engines = [Taker() for _ in range(takers)]
    runs = [DealtRun(generations(count) if index % 2 else scores(count, choices)) for index, count in enumerate(counts)]
    answered: list[list[str]] = [[] for _ in runs]
    flying = deal(engines, runs, capacity)
    returns = 5
    while flying:
        assert all(taker.load for taker in engines) or not any(run.waiting for run in runs)
        portion = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
        portion.taker.load -= sum(map(weight, portion.requests))
        portion.taker.portions -= 1
        portion.run.portions -= 1
        if returns and data.draw(st.booleans()):
            returns -= 1
            portion.run.give_back(portion.requests)
        else:
            for request in portion.requests:
                portion.run.answer(request, Scored(request.id, 0.0, False, 1, 1))
                answered[runs.index(portion.run)].append(request.id)
        flying += deal(engines, runs, capacity)
    for index, run in enumerate(runs):
        assert len(answered[index]) == len(set(answered[index]))
        assert (run.left, run.waiting, run.portions) == (0, 0, 0)
    assert [taker.load for taker in engines] == [0] * takers


@given(load=st.integers(0, 5000), left=st.integers(1, 10**6), takers=st.integers(1, 64), capacity=st.integers(1, 4096))
def test_a_portion_never_takes_an_engine_beyond_its_capacity_or_fair_part(
    load: int, left: int, takers: int, capacity: int
) -> None:
    size = portion_size(load, left=left, takers=takers, capacity=capacity)
    assert size >= 0
    if size:
        assert load + size <= min(capacity, -(-left // takers))
    elif load == 0:
        raise AssertionError("an idle engine gets something")
