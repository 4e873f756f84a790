"""Bisection over requests, against an engine that dies of some of them."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.bench.dealing import MOST_TOGETHER, Isolation


def run(count: int, poison: set[int], seed: int, strays: int = 0) -> tuple[set[int], set[int], list[int]]:
    """Ask everything of an engine that dies of ``poison``, and ``strays`` times of nothing. Returns answered, guilty, deaths."""
    random_order = random.Random(seed)
    isolation: Isolation[int] = Isolation()
    waiting, answered, guilty, deaths = set(range(count)), set[int](), set[int](), []
    while waiting:
        asked = [key for key in isolation.next_suspects if key in waiting] or sorted(waiting)
        random_order.shuffle(asked)
        before = random_order.randint(0, len(asked))  # answered beside the poison, before it kills
        dies = bool(poison & set(asked))
        if not dies and strays and random_order.random() < 0.3:
            strays, dies = strays - 1, True
        done = {key for key in (asked[:before] if dies else asked) if key not in poison}
        answered |= done
        waiting -= done
        isolation = isolation.without(done)
        if dies:
            in_flight = [key for key in asked if key not in done]
            if in_flight:
                deaths.append(len(in_flight))
                isolation, found = isolation.after_death(in_flight)
                if found is not None:
                    guilty.add(found)
                    waiting.discard(found)
        assert len(deaths) < 10_000
    return answered, guilty, deaths


@settings(max_examples=200)
@given(st.integers(1, 300), st.data(), st.integers(0, 2**32))
def test_exactly_the_poison_is_left_out(count: int, data: st.DataObject, seed: int) -> None:
    poison = data.draw(st.sets(st.integers(0, count - 1), max_size=4))
    answered, guilty, deaths = run(count, poison, seed)
    assert guilty == poison
    assert answered == set(range(count)) - poison
    # Two for all, one for each halving, two for the last alone.
    most = 4 + math.ceil(math.log2(max(2, min(count, 2 * MOST_TOGETHER)))) + 1
    assert len(deaths) <= most * len(poison)


@settings(max_examples=100)
@given(st.integers(1, 300), st.data(), st.integers(0, 2**32))
def test_an_engine_that_dies_of_something_else_too_costs_no_request(count: int, data: st.DataObject, seed: int) -> None:
    poison = data.draw(st.sets(st.integers(0, count - 1), max_size=2))
    answered, guilty, _ = run(count, poison, seed, strays=1)
    assert guilty == poison
    assert answered == set(range(count)) - poison


def test_one_death_makes_nobody_a_suspect() -> None:
    isolation, guilty = Isolation[int]().after_death(range(10))
    assert guilty is None
    assert isolation.next_suspects == ()


def test_half_of_those_that_were_there_twice_are_asked_apart() -> None:
    isolation, _ = Isolation[int]().after_death(range(10))
    isolation, _ = isolation.after_death(range(6))
    assert isolation.next_suspects == (0, 1, 2)
    assert isolation.without({0, 1, 2}).next_suspects == (3, 4)


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_suspects_are_asked_in_numbers_that_an_engine_answers_quickly(count: int) -> None:
    isolation, _ = Isolation[int]().after_death(range(count))
    isolation, _ = isolation.after_death(range(count))
    assert len(isolation.next_suspects) == min(math.ceil(count / 2), MOST_TOGETHER)
