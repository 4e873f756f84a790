"""How long, and how often, a store that does not answer is asked again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core.errors import StoreError, StoreUnreachableError
from core.storage.retry import patiently


class Store:
    """Does not answer a number of times."""

    def __init__(self, failures: int) -> None:
        self.failures, self.asked = failures, 0

    def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self.failures:
            raise StoreUnreachableError("does not answer")
        return "answer"


def resting() -> tuple[list[float], Callable[[float], bool]]:
    """Waits that were asked for, and who is asked."""
    rested: list[float] = []

    def rest(seconds: float) -> bool:
        rested.append(seconds)
        return False

    return rested, rest


def test_waits_double_up_to_half_a_minute() -> None:
    rested, rest = resting()
    assert patiently(Store(failures=8), 1e6, rest) == "answer"
    assert rested == [1, 2, 4, 8, 16, 30, 30, 30]


def test_an_answer_ends_the_waiting() -> None:
    rested, rest = resting()
    assert patiently(Store(failures=3), 600, rest) == "answer"
    assert rested == [1, 2, 4]


def test_patience_ends_with_the_stores_own_error() -> None:
    store = Store(failures=100)
    with pytest.raises(StoreUnreachableError, match="does not answer"):
        patiently(store, 0, lambda seconds: False)
    assert store.asked == 1


def test_who_is_told_to_give_up_does() -> None:
    store = Store(failures=100)
    with pytest.raises(StoreUnreachableError):
        patiently(store, 600, lambda seconds: True)
    assert store.asked == 1


def test_what_is_no_silence_is_raised_at_once() -> None:
    def refuses() -> None:
        raise StoreError("not allowed")

    with pytest.raises(StoreError, match="not allowed"):
        patiently(refuses, 600, lambda seconds: False)
