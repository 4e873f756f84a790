"""What people are told of an error that others wrap."""

from __future__ import annotations

from itertools import pairwise

import pytest

from core.errors import reason_of


def wrapped(*errors: Exception) -> Exception:
    for outer, inner in pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ((KeyError("test"),), "KeyError: 'test'"),
        ((RuntimeError("An error occurred"), ValueError("no\nrows")), "ValueError: no"),
        ((RuntimeError("a"), ValueError("b"), OSError("c")), "OSError: c"),
        ((RuntimeError("says something"), StopIteration()), "RuntimeError: says something"),
        ((StopIteration(),), "StopIteration"),
        ((RuntimeError("\n  first\nsecond"),), "RuntimeError: first"),
    ],
)
def test_the_cause_is_told_and_not_its_wrapper(errors: tuple[Exception, ...], told: str) -> None:
    assert reason_of(wrapped(*errors)) == told


def test_errors_that_cause_each_other_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert reason_of(first) == "ValueError: b"
