"""Which rows of a prompt come from one step."""

from __future__ import annotations

import pytest

pytest.importorskip("vllm")

from vllm import SamplingParams

from engines.session.score_rows import FIRST_SCORED, Part, first_scored, part_of


@pytest.mark.parametrize(
    ("computed", "tokens", "part"),
    [
        (0, 10, Part("r", 4, 10, 103, True)),
        (0, 3, Part("r", 4, 4, 103, False)),  # the third token predicts position 3
        (0, 6, Part("r", 4, 7, 103, False)),
        (6, 4, Part("r", 7, 10, 100, True)),
        (9, 1, Part("r", 10, 10, 100, True)),  # the last token predicts no position of the prompt
    ],
)
def test_rows_of_a_step(computed: int, tokens: int, part: Part) -> None:
    """A prompt of ten tokens, scored from its fifth on; its hidden states are the step's from 100 on."""
    assert part_of("r", 4, computed=computed, tokens=tokens, length=10, offset=100) == part


def test_only_requests_for_prompt_logprobs_are_ours() -> None:
    assert first_scored(SamplingParams(prompt_logprobs=1, extra_args={FIRST_SCORED: 3})) == 3
    assert first_scored(SamplingParams(prompt_logprobs=1)) is None
    assert first_scored(SamplingParams(extra_args={FIRST_SCORED: 3})) is None
