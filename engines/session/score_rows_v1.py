"""`engines.session.score_rows` in vLLM's first model runner."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from vllm.v1.outputs import LogprobsTensors

from engines.session.score_rows import Part, first_scored, part_of, parted, score

REPLACED = "_get_prompt_logprobs_dict"
PARAMETERS = ["hidden_states", "num_scheduled_tokens"]

Replaced = Callable[[torch.Tensor, dict[str, int]], dict[str, LogprobsTensors | None]]


def switch(runner: Any, on: bool) -> bool:
    """Switch a runner to scored rows only, or back. Returns whether it now does as told."""
    own = getattr(type(runner), REPLACED, None)
    if own is None or list(inspect.signature(own).parameters)[1:] != PARAMETERS:
        return not on
    if on:
        setattr(runner, REPLACED, ScoredRowsV1(runner, own.__get__(runner)))
    else:
        vars(runner).pop(REPLACED, None)
    return True


class ScoredRowsV1:
    """The callable that the runner calls after each step."""

    def __init__(self, runner: Any, replaced: Replaced) -> None:
        self._runner = runner
        self._replaced = replaced
        self._next: dict[str, int] = {}  # position that follows the rows of a request whose prompt goes on

    def __call__(
        self, hidden_states: torch.Tensor, num_scheduled_tokens: dict[str, int]
    ) -> dict[str, LogprobsTensors | None]:
        """Return the rows of each prompt that ends in this step."""
        runner = self._runner
        given = runner.num_prompt_logprobs
        wanted = {
            request: at
            for request in given
            if (at := first_scored(runner.requests[request].sampling_params)) is not None
        }
        others = {request: count for request, count in given.items() if request not in wanted}
        runner.num_prompt_logprobs = others
        ended = self._replaced(hidden_states, num_scheduled_tokens)  # takes those that ended out of ``others``
        runner.num_prompt_logprobs = {request: given[request] for request in wanted} | others
        return ended | self._scored(hidden_states, list(self._parts(num_scheduled_tokens, wanted)))

    def _scored(self, hidden_states: torch.Tensor, parts: list[Part]) -> dict[str, LogprobsTensors | None]:
        if not parts:
            return {}
        runner = self._runner
        tokens = [
            token for part in parts for token in runner.requests[part.request].prompt_token_ids[part.first : part.end]
        ]
        targets = torch.tensor(tokens, dtype=torch.int64, device=hidden_states.device)
        ended: dict[str, LogprobsTensors | None] = {}
        rows = score(runner.model.compute_logits, hidden_states, parts, targets)
        on_cpu = LogprobsTensors(*(column.cpu() for column in rows[:3]))
        for part, found in zip(parts, parted(parts, on_cpu), strict=True):
            whole = self._joined(part, found)
            state = runner.requests[part.request]
            if part.last:
                ended[part.request] = whole
                del runner.num_prompt_logprobs[part.request]
                state.in_progress_prompt_logprobs_cpu = None
            else:
                state.in_progress_prompt_logprobs_cpu = whole
                self._next[part.request] = part.end
        self._next = {request: at for request, at in self._next.items() if request in runner.num_prompt_logprobs}
        return ended

    def _joined(self, part: Part, found: LogprobsTensors) -> LogprobsTensors:
        """Append to the rows of earlier steps; those are dropped where the prompt began anew meanwhile."""
        earlier = self._runner.requests[part.request].in_progress_prompt_logprobs_cpu
        if earlier is None or self._next.get(part.request) != part.first:
            return found
        return LogprobsTensors.cat([earlier, found])

    def _parts(self, scheduled: dict[str, int], wanted: dict[str, int]) -> Iterator[Part]:
        runner = self._runner
        for request, first in wanted.items():
            if (tokens := scheduled.get(request)) is None:
                continue  # preempted meanwhile
            state = runner.requests[request]
            yield part_of(
                request,
                first,
                computed=state.num_computed_tokens,
                tokens=tokens,
                length=len(state.prompt_token_ids),
                offset=int(runner.query_start_loc.np[runner.input_batch.req_id_to_index[request]]),
            )
