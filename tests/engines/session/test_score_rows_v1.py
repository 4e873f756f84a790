"""Scored rows against all rows, with plain tensors in place of vLLM's first model runner."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

from engines.session.score_rows import FIRST_SCORED  # noqa: E402
from engines.session.score_rows_v1 import ScoredRowsV1, switch  # noqa: E402
from tests.engines.prompt_rows import HEAD, HIDDEN, PROMPTS, rows, same  # noqa: E402


def make_runner(first: dict[str, int], computed: dict[str, int]) -> Any:
    return SimpleNamespace(
        model=SimpleNamespace(compute_logits=lambda rows: rows @ HEAD),
        num_prompt_logprobs=dict.fromkeys(first, 1),
        requests={
            name: SimpleNamespace(
                prompt_token_ids=PROMPTS[name],
                num_computed_tokens=computed.get(name, 0),
                sampling_params=SimpleNamespace(extra_args={FIRST_SCORED: position}, prompt_logprobs=1),
                in_progress_prompt_logprobs_cpu=None,
            )
            for name, position in first.items()
        },
    )


def scored_rows(runner: Any) -> ScoredRowsV1:
    def own(_hidden: Any, _scheduled: Any) -> dict[str, Any]:
        ended = dict.fromkeys(runner.num_prompt_logprobs, "vLLM's own")
        runner.num_prompt_logprobs.clear()
        return ended

    return ScoredRowsV1(runner, own)


def step(scored: ScoredRowsV1, runner: Any, scheduled: dict[str, int]) -> dict[str, Any]:
    """One step of a runner: the hidden states of what is scheduled, one request behind the other."""
    begins, hidden = [0], []
    for name, tokens in scheduled.items():
        begin = runner.requests[name].num_computed_tokens
        hidden.append(HIDDEN[name][begin : begin + tokens])
        begins.append(begins[-1] + tokens)
    runner.query_start_loc = SimpleNamespace(np=begins)
    runner.input_batch = SimpleNamespace(req_id_to_index={name: index for index, name in enumerate(scheduled)})
    found = scored(torch.cat(hidden), scheduled)
    for name, tokens in scheduled.items():
        runner.requests[name].num_computed_tokens += tokens
    return found


def test_one_step_gives_the_scored_rows_of_every_request() -> None:
    runner = make_runner({"a": 3, "b": 1, "c": 4}, {})
    found = step(scored_rows(runner), runner, {"a": 6, "b": 3, "c": 5})
    assert all(same(found[name], name, first) for name, first in (("a", 3), ("b", 1), ("c", 4)))
    assert runner.num_prompt_logprobs == {}


def test_a_prompt_may_come_in_several_steps() -> None:
    runner = make_runner({"a": 2, "c": 4}, {})
    scored = scored_rows(runner)
    assert step(scored, runner, {"a": 1, "c": 2}) == {}  # nothing of either is scored yet
    assert step(scored, runner, {"a": 3, "c": 2}) == {}
    found = step(scored, runner, {"c": 1, "a": 2})
    assert same(found["a"], "a", 2)
    assert same(found["c"], "c", 4)


def test_a_last_step_of_one_token_adds_no_row() -> None:
    runner = make_runner({"b": 1}, {})
    scored = scored_rows(runner)
    assert step(scored, runner, {"b": 2}) == {}
    assert same(step(scored, runner, {"b": 1})["b"], "b", 1)


def test_positions_from_the_cache_have_no_rows() -> None:
    runner = make_runner({"a": 2}, {"a": 4})
    assert same(step(scored_rows(runner), runner, {"a": 2})["a"], "a", 5)


def test_a_prompt_that_begins_anew_is_not_counted_twice() -> None:
    runner = make_runner({"a": 1}, {})
    scored = scored_rows(runner)
    step(scored, runner, {"a": 3})
    runner.requests["a"].num_computed_tokens = 0  # preempted
    assert same(step(scored, runner, {"a": 6})["a"], "a", 1)


def test_a_preempted_request_is_left_alone() -> None:
    runner = make_runner({"a": 1, "b": 1}, {})
    assert set(step(scored_rows(runner), runner, {"b": 3})) == {"b"}
    assert set(runner.num_prompt_logprobs) == {"a"}


def test_requests_that_are_not_ours_are_left_to_vllm() -> None:
    runner = make_runner({"a": 1, "b": 1}, {})
    runner.requests["b"].sampling_params.extra_args = None
    found = step(scored_rows(runner), runner, {"a": 6, "b": 3})
    assert found["b"] == "vLLM's own"
    assert same(found["a"], "a", 1)
    assert runner.num_prompt_logprobs == {}


def test_the_most_likely_token_ranks_first() -> None:
    runner = make_runner({"a": 1}, {})
    found = step(scored_rows(runner), runner, {"a": 6})["a"]
    assert [rank == 1 for rank in found.selected_token_ranks.tolist()] == [own == best for _, own, best in rows(found)]


class FirstRunner:
    """As much of vLLM's as `switch` looks at."""

    def _get_prompt_logprobs_dict(self, hidden_states: Any, num_scheduled_tokens: Any) -> dict[str, Any]:
        return {}


def test_a_runner_is_switched_and_back() -> None:
    runner = FirstRunner()
    assert switch(runner, True)
    assert isinstance(runner._get_prompt_logprobs_dict, ScoredRowsV1)
    assert switch(runner, False)
    assert not isinstance(runner._get_prompt_logprobs_dict, ScoredRowsV1)


def test_a_runner_of_another_kind_is_left_alone() -> None:
    assert not switch(SimpleNamespace(), True)
    assert switch(SimpleNamespace(), False)
