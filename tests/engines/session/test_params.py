"""Log-probabilities that are not numbers, in vLLM's own outputs: never a score."""

from __future__ import annotations

import math
from typing import Any

import pytest

from engines.session.tokens import Prefill, ScoredSpan

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


PREFILL = Prefill((5, 6, 7), (ScoredSpan(0, (5, 6, 7, 9), 1),))


def test_numbers_are_scored() -> None:
    from engines.session.params import add_up, has_nan, read_rows, swallowed

    found = output([[-1.0, -0.5], [-2.0, -2.0]], [-0.1, -3.0])
    rows = read_rows(PREFILL, found)
    assert rows == [(-1.0, False), (-2.0, True)]
    assert add_up(PREFILL, rows, found) == [(-6.0, False)]
    assert swallowed(PREFILL, found) is None
    assert not has_nan(found)


@pytest.mark.parametrize("prompt", [[[NAN, NAN], [-2.0, -0.5]], [[NAN] * 2] * 2])
def test_what_is_no_number_is_no_row(prompt: list[list[float]]) -> None:
    from engines.session.params import has_nan, read_rows

    found = output(prompt, [-0.1, -3.0])
    assert read_rows(PREFILL, found) is None
    assert has_nan(found)


def test_a_step_without_a_number_is_no_score() -> None:
    from engines.session.params import add_up, has_nan, read_rows

    found = output([[-1.0, -0.5], [-2.0, -0.5]], [-0.1, NAN])
    rows = read_rows(PREFILL, found)
    assert rows is not None
    assert add_up(PREFILL, rows, found) is None
    assert has_nan(found)


def test_rows_of_cached_positions_tell_nothing() -> None:
    from engines.session.params import has_nan

    assert not has_nan(output([[NAN, NAN], [-2.0, -0.5]], [-0.1, -3.0], cached=2))


def test_what_the_cache_swallowed_is_a_prefill_of_its_own() -> None:
    """Cached are the tokens 5 and 6, so nothing predicts 6; 7 is predicted by 6, which is cached too."""
    from engines.session.params import read_rows, swallowed

    found = output([[NAN, NAN], [NAN, NAN]], [-0.1, -3.0], cached=2)
    assert read_rows(PREFILL, found) == []
    assert swallowed(PREFILL, found) == Prefill((5, 6), (ScoredSpan(0, (5, 6, 7), 1),))
    found = output([[NAN, NAN], [-2.0, -0.5]], [-0.1, -3.0], cached=1)
    assert read_rows(PREFILL, found) == [(-2.0, False)]
    assert swallowed(PREFILL, found) == Prefill((5,), (ScoredSpan(0, (5, 6), 1),))


def test_nothing_is_swallowed_before_the_first_scored_position() -> None:
    from engines.session.params import read_rows, swallowed

    later = Prefill((5, 6, 7), (ScoredSpan(0, (5, 6, 7, 9), 2),))
    found = output([[NAN, NAN], [-2.0, -0.5]], [-0.1, -3.0], cached=1)
    assert read_rows(later, found) == [(-2.0, False)]
    assert swallowed(later, found) is None
    step_only = Prefill((5, 6, 7), (ScoredSpan(0, (5, 6, 7, 9), 3),))
    assert swallowed(step_only, output([[NAN] * 2] * 2, [-0.1, -3.0], cached=2)) is None


def test_the_settings_that_are_read_from_vllm_s_source_are_its_own() -> None:
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    from core.catalogue.generation import BOUNDED, generation_faults
    from core.python_source import declared_fields

    own = {name for name in SamplingParams.__struct_fields__ if not name.startswith("_")}
    assert declared_fields("vllm", "sampling_params.py", ("SamplingParams",)).keys() == own
    for name in (*own - {"stop"}, *BOUNDED):
        value = getattr(SamplingParams(), name)
        faults = [] if value is None else list(generation_faults({name: value}))
        assert not faults or "a YAML cannot say it" in faults[0].message, faults
    edges: dict[str, tuple[float, ...]] = {
        "temperature": (-0.1, 0.0, 2.0, 2.1, math.inf, math.nan),
        "top_p": (0.0, 0.1, 1.0, 1.1),
        "top_k": (-2, -1, 0, 1),
        "min_p": (-0.1, 0.0, 1.0, 1.1),
        "repetition_penalty": (0.0, 0.1, math.inf),
        "presence_penalty": (-2.1, -2.0, 2.0, 2.1),
        "frequency_penalty": (-2.1, -2.0, 2.0, 2.1),
        "min_tokens": (-1, 0),
        "max_tokens": (0, 1),
    }
    assert edges.keys() >= BOUNDED.keys()
    for name, values in edges.items():
        for value in values:
            try:
                SamplingParams(**{name: value})
            except VLLMValidationError:
                assert list(generation_faults({name: value})), (name, value)
            else:
                assert not list(generation_faults({name: value})), (name, value)
