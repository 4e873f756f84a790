"""Scored rows against all rows, with plain tensors in place of vLLM's second model runner."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

import numpy as np  # noqa: E402
from vllm import SamplingParams  # noqa: E402

from engines.session.score_rows import FIRST_SCORED  # noqa: E402
from engines.session.score_rows_v2 import ScoredRowsV2, switch  # noqa: E402
from tests.engines.prompt_rows import HEAD, HIDDEN, PROMPTS, same  # noqa: E402

PLACES = {"a": 2, "b": 0, "c": 3}  # of requests in the runner's state


class OwnWorker:
    """As much of vLLM's worker as ours stands before: which requests it was given, and which were left to it."""

    def __init__(self) -> None:
        self.uses_prompt_logprobs = np.zeros(4, dtype=bool)
        self.removed: list[str] = []

    def add_request(self, req_id: str, req_idx: int, sampling_params: SamplingParams) -> None:
        self.uses_prompt_logprobs[req_idx] = sampling_params.prompt_logprobs is not None

    def remove_request(self, req_id: str) -> None:
        self.removed.append(req_id)

    def compute_prompt_logprobs(
        self,
        logits_fn: Any,
        hidden_states: Any,
        input_batch: Any,
        all_token_ids: Any,
        num_computed_tokens: Any,
        prompt_lens: Any,
    ) -> dict[str, Any]:
        return {name: "vLLM's own" for name in input_batch.req_ids if self.uses_prompt_logprobs[PLACES[name]]}


def scored_rows(first: Mapping[str, int]) -> ScoredRowsV2:
    worker = ScoredRowsV2(OwnWorker())
    for name, position in first.items():
        worker.add_request(name, PLACES[name], params(position))
    return worker


def params(position: int | None) -> SamplingParams:
    return SamplingParams(prompt_logprobs=1, extra_args=None if position is None else {FIRST_SCORED: position})


def step(worker: ScoredRowsV2, scheduled: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """One step, of so many tokens behind so many computed ones."""
    begins = np.cumsum([0, *(tokens for _, tokens in scheduled.values())])
    hidden = [HIDDEN[name][computed : computed + tokens] for name, (computed, tokens) in scheduled.items()]
    all_tokens = torch.zeros(4, 8, dtype=torch.int32)
    for name, place in PLACES.items():
        all_tokens[place, : len(PROMPTS[name])] = torch.tensor(PROMPTS[name])
    batch = SimpleNamespace(
        req_ids=list(scheduled),
        idx_mapping_np=np.array([PLACES[name] for name in scheduled]),
        num_computed_prefill_tokens_np=np.array([computed for computed, _ in scheduled.values()]),
        num_scheduled_tokens=np.array([tokens for _, tokens in scheduled.values()]),
        query_start_loc_np=begins,
    )
    lengths = np.array([len(PROMPTS["b"]), 0, len(PROMPTS["a"]), len(PROMPTS["c"])])
    return worker.compute_prompt_logprobs(
        lambda rows: rows @ HEAD, torch.cat(hidden), batch, all_tokens, torch.zeros(4), lengths
    )


def test_one_step_gives_the_scored_rows_of_every_request() -> None:
    found = step(scored_rows({"a": 3, "b": 1, "c": 4}), {"a": (0, 6), "b": (0, 3), "c": (0, 5)})
    assert all(same(found[name], name, first) for name, first in (("a", 3), ("b", 1), ("c", 4)))


def test_a_prompt_may_come_in_several_steps() -> None:
    worker = scored_rows({"a": 2, "c": 4})
    assert step(worker, {"a": (0, 1), "c": (0, 2)}) == {}
    assert step(worker, {"a": (1, 3), "c": (2, 2)}) == {}
    found = step(worker, {"c": (4, 1), "a": (4, 2)})
    assert same(found["a"], "a", 2)
    assert same(found["c"], "c", 4)


def test_positions_from_the_cache_have_no_rows() -> None:
    assert same(step(scored_rows({"a": 2}), {"a": (4, 2)})["a"], "a", 5)


def test_a_prompt_that_begins_anew_is_not_counted_twice() -> None:
    worker = scored_rows({"a": 1})
    step(worker, {"a": (0, 3)})
    worker.remove_request("a")  # preempted
    worker.add_request("a", PLACES["a"], params(1))
    assert same(step(worker, {"a": (0, 6)})["a"], "a", 1)
    assert worker.own.removed == ["a"]


def test_rows_come_once() -> None:
    worker = scored_rows({"a": 1})
    assert step(worker, {"a": (0, 6)})
    assert step(worker, {"a": (6, 0)}) == {}


def test_requests_that_are_not_ours_are_left_to_vllm() -> None:
    worker = scored_rows({"a": 1})
    worker.add_request("b", PLACES["b"], params(None))
    found = step(worker, {"a": (0, 6), "b": (0, 3)})
    assert found["b"] == "vLLM's own"
    assert same(found["a"], "a", 1)


def test_a_runner_is_switched_and_back() -> None:
    own = OwnWorker()
    runner = SimpleNamespace(prompt_logprobs_worker=own)
    assert switch(runner, True)
    assert switch(runner, True)
    assert isinstance(runner.prompt_logprobs_worker, ScoredRowsV2)
    assert runner.prompt_logprobs_worker.own is own
    assert switch(runner, False)
    assert runner.prompt_logprobs_worker is own


def test_a_runner_of_another_kind_is_left_alone() -> None:
    assert not switch(SimpleNamespace(), True)
    other = SimpleNamespace(compute_prompt_logprobs=lambda hidden_states: {})
    runner = SimpleNamespace(prompt_logprobs_worker=other)
    assert not switch(runner, True)
    assert runner.prompt_logprobs_worker is other


def test_a_rank_without_logits_has_nothing_to_switch() -> None:
    runner = SimpleNamespace(prompt_logprobs_worker=None)
    assert switch(runner, True)
    assert runner.prompt_logprobs_worker is None
