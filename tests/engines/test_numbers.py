"""Log-probabilities that are not numbers, in vLLM's own outputs: never a score."""

from __future__ import annotations

import math
from typing import Any

import pytest

from engines.tokens import Prefill, Span

NAN = math.nan


def output(prompt: list[list[float]], step: list[float], cached: int = 0) -> Any:
    """What vLLM returns for the prompt (5, 6, 7): a row of log-probabilities for each position but the first, and a step's."""
    from vllm.logprobs import FlatLogprobs
    from vllm.outputs import CompletionOutput, RequestOutput

    rows = FlatLogprobs()
    rows.append(None)
    for token, values in zip((6, 7), prompt, strict=True):
        rows.append_fast([token, 1], values, [1, 1], [None, None])
    last = FlatLogprobs()
    last.append_fast([8, 9], step, [1, 2], [None, None])
    answer = CompletionOutput(0, "", [8], None, last, finish_reason="length")
    return RequestOutput("r", None, [5, 6, 7], rows, [answer], True, num_cached_tokens=cached)


PREFILL = Prefill((5, 6, 7), (Span(0, (5, 6, 7, 9), 1),))


def test_numbers_are_scored() -> None:
    from engines.vllm_params import has_nan, read_scores

    found = output([[-1.0, -0.5], [-2.0, -0.5]], [-0.1, -3.0])
    assert read_scores(PREFILL, found) == [(-6.0, False)]
    assert not has_nan(found)


@pytest.mark.parametrize(
    ("prompt", "step"),
    [
        ([[NAN, NAN], [-2.0, -0.5]], [-0.1, -3.0]),
        ([[-1.0, -0.5], [-2.0, -0.5]], [-0.1, NAN]),
        ([[NAN] * 2] * 2, [NAN] * 2),
    ],
)
def test_what_is_no_number_is_no_score(prompt: list[list[float]], step: list[float]) -> None:
    from engines.vllm_params import has_nan, read_scores

    found = output(prompt, step)
    assert read_scores(PREFILL, found) is None
    assert has_nan(found)


def test_rows_of_cached_positions_tell_nothing() -> None:
    from engines.vllm_params import has_nan

    assert not has_nan(output([[NAN, NAN], [-2.0, -0.5]], [-0.1, -3.0], cached=2))
