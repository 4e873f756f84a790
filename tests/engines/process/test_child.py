"""Requests in portions: none lost, none too large."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.request import Generate, Loglikelihood, Request, Sampling
from engines.process.child import MOST_REQUESTS, batches, quote_log


def with_image(size: int, id: int) -> Generate:
    return Generate(str(id), "", Sampling(), (b"x" * size,))


def test_text_travels_by_the_number() -> None:
    requests = [Loglikelihood(str(number), "a", " b") for number in range(2 * MOST_REQUESTS + 1)]
    assert [len(batch) for batch in batches(requests)] == [MOST_REQUESTS, MOST_REQUESTS, 1]
    assert list(batches([])) == []


@given(st.lists(st.integers(0, 30), max_size=40))
def test_images_travel_by_their_size(sizes: list[int]) -> None:
    requests: list[Request] = [with_image(size, number) for number, size in enumerate(sizes)]
    found = list(batches(requests, most_bytes=20))
    assert [request for batch in found for request in batch] == requests
    weights = [[len(r.images[0]) for r in batch if isinstance(r, Generate)] for batch in found]
    assert all(len(weight) == 1 or sum(weight) <= 20 for weight in weights)


@pytest.mark.parametrize(
    "follow_up",
    [
        "Exception: WorkerProc initialization failed due to an exception in a background process.",
        "RuntimeError: Engine core initialization failed. See root cause above.",
        "RuntimeError: cancelled",
    ],
)
def test_what_a_log_says_last_of_the_cause_is_told_not_what_follows_from_it(tmp_path: Path, follow_up: str) -> None:
    log = tmp_path / "engine.log"
    log.write_text(f"KeyError: 'early'\n(Worker) ValueError: weights were not initialized\nraised here\n{follow_up}\n")
    assert quote_log(log).startswith(f" (ValueError: weights were not initialized); the end of its log {log}:\n")
