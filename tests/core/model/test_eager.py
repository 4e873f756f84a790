"""Eager or compiled, by the amount of work."""

from dataclasses import replace
from typing import Any

import pytest

from core.campaign import FleetSpec, PolicySpec
from core.model.eager import starts_eagerly, tokens_ahead
from core.model.placement import Placement
from core.request import Generate, Loglikelihood, LoglikelihoodRolling, Request, Sampling

PLACEMENT = Placement("lightweight", 1, 1, 1, 4096, "bfloat16", 10**9, "fits.")
GPUS = FleetSpec(device="cuda")
POLICY = PolicySpec(compile_tokens=1000)


def test_a_generation_counts_its_longest_answer_and_a_score_one_step() -> None:
    requests: list[Request] = [
        Generate("a", "b", Sampling(max_tokens=200)),
        Loglikelihood("c", "d", " e"),
        LoglikelihoodRolling("f", "g"),
    ]
    assert tokens_ahead(requests) == 202
    assert tokens_ahead([]) == 0


def test_little_work_starts_eagerly_and_says_so() -> None:
    why = starts_eagerly(PLACEMENT, {}, GPUS, POLICY, 999)
    assert why == "starts eagerly: at most 999 tokens to generate (compiled from 1,000)"


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, 1000),
        ({"placement": replace(PLACEMENT, engine="distributed")}, 1),
        ({"fleet": FleetSpec(device="cpu")}, 1),
        ({"vllm": {"enforce_eager": False}}, 1),
        ({"vllm": {"enforce_eager": True}}, 1),
        ({"policy": PolicySpec(compile_tokens=0)}, 0),
    ],
)
def test_all_else_stays_as_it_is(changes: dict[str, Any], tokens: int) -> None:
    given: dict[str, Any] = {"placement": PLACEMENT, "vllm": {}, "fleet": GPUS, "policy": POLICY, **changes}
    assert starts_eagerly(given["placement"], given["vllm"], given["fleet"], given["policy"], tokens) is None
