"""Prompt log-probabilities of the scored positions only, as an extension of vLLM's workers.

vLLM's first model runner computes logits for every prompt position, request by request. Here one product serves all requests
of a step, and of each only the positions from the request's ``FIRST_SCORED`` on; requests without that are vLLM's. It stands
in for a private method of the runner, so `engines.row_check` compares the two before it is relied on, and vLLM's own stays
where they differ.
Imported in vLLM's worker processes only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.outputs import LogprobsTensors

if TYPE_CHECKING:
    from vllm.v1.worker.gpu_worker import Worker

EXTENSION = f"{__name__}.ScoreRows"
# Key of SamplingParams.extra_args: the first prompt position whose row is wanted.
FIRST_SCORED = "steelyard_first_scored"
ROWS_AT_ONCE = 1024  # of logits in memory
CACHED_ROWS = 16  # of which as many pass through a processor's cache together: three times as fast as all at once
REPLACED = "_get_prompt_logprobs_dict"
PARAMETERS = ["hidden_states", "num_scheduled_tokens"]


class ScoreRows:
    """Mixed into vLLM's worker class by ``worker_extension_cls``."""

    def steelyard_score_rows(self: Worker, on: bool) -> bool:
        """Switch to scored rows only, or back. Returns whether this worker now does as told."""
        runner: Any = self.model_runner
        own = getattr(type(runner), REPLACED, None)
        if own is None or list(inspect.signature(own).parameters)[1:] != PARAMETERS:
            return not on
        if on:
            setattr(runner, REPLACED, _ScoredRows(runner, own.__get__(runner)))
        else:
            vars(runner).pop(REPLACED, None)
        return True


@dataclass(frozen=True)
class _Part:
    """Rows of one request within a step: they predict ``targets``, which are prompt positions from ``first`` on.

    ``begin`` is the first of them in the step's hidden states; ``last`` says that the prompt ends here.
    """

    request: str
    first: int
    begin: int
    targets: list[int]
    last: bool


class _ScoredRows:
    """What the runner calls after each step."""

    def __init__(self, runner: Any, replaced: Callable[..., dict[str, LogprobsTensors | None]]) -> None:
        self._runner = runner
        self._replaced = replaced
        self._next: dict[str, int] = {}  # position that follows the rows of a request whose prompt goes on

    def __call__(
        self, hidden_states: torch.Tensor, num_scheduled_tokens: dict[str, int]
    ) -> dict[str, LogprobsTensors | None]:
        """Return rows of (own, most likely) log-probabilities, as (positions, 2), of each prompt that ends in this step."""
        runner = self._runner
        given = runner.num_prompt_logprobs
        first = {request: at for request in given if (at := self._first_scored(request)) is not None}
        others = {request: count for request, count in given.items() if request not in first}
        runner.num_prompt_logprobs = others
        ended = self._replaced(hidden_states, num_scheduled_tokens)  # takes those that ended out of ``others``
        runner.num_prompt_logprobs = {request: given[request] for request in first} | others
        return ended | self._scored(hidden_states, num_scheduled_tokens, first)

    def _first_scored(self, request: str) -> int | None:
        return (self._runner.requests[request].sampling_params.extra_args or {}).get(FIRST_SCORED)

    def _scored(
        self, hidden_states: torch.Tensor, scheduled: dict[str, int], first_scored: dict[str, int]
    ) -> dict[str, LogprobsTensors | None]:
        runner = self._runner
        parts = list(self._parts(scheduled, first_scored))
        if not parts:
            return {}
        sizes = [len(part.targets) for part in parts]
        rows = torch.cat(
            [hidden_states[part.begin : part.begin + size] for part, size in zip(parts, sizes, strict=True)]
        )
        targets = torch.tensor([token for part in parts for token in part.targets], device=rows.device)
        columns = [each.split(sizes) for each in self._score(rows, targets)]
        ended: dict[str, LogprobsTensors | None] = {}
        for part, *found in zip(parts, *columns, strict=True):
            whole = self._joined(part, LogprobsTensors(*found))
            state = runner.requests[part.request]
            if part.last:
                ended[part.request] = whole
                del runner.num_prompt_logprobs[part.request]
                state.in_progress_prompt_logprobs_cpu = None
            else:
                state.in_progress_prompt_logprobs_cpu = whole
                self._next[part.request] = part.first + len(part.targets)
        self._next = {request: at for request, at in self._next.items() if request in runner.num_prompt_logprobs}
        return ended

    def _joined(self, part: _Part, found: LogprobsTensors) -> LogprobsTensors:
        """Append to the rows of earlier steps; those are dropped where the prompt began anew meanwhile."""
        earlier = self._runner.requests[part.request].in_progress_prompt_logprobs_cpu
        if earlier is None or self._next.get(part.request) != part.first:
            return found
        return LogprobsTensors.cat([earlier, found])

    def _parts(self, scheduled: dict[str, int], first_scored: dict[str, int]) -> Iterator[_Part]:
        runner = self._runner
        for request, wanted in first_scored.items():
            if (tokens := scheduled.get(request)) is None:
                continue  # preempted meanwhile
            state = runner.requests[request]
            prompt, start = state.prompt_token_ids, state.num_computed_tokens
            first = max(wanted, start + 1)
            # The row of the prompt's last token predicts the first generated one.
            end = max(first, min(start + tokens + 1, len(prompt)))
            offset = int(runner.query_start_loc.np[runner.input_batch.req_id_to_index[request]]) - start
            yield _Part(request, first, offset + first - 1, prompt[first:end], last=start + tokens >= len(prompt))

    def _score(self, rows: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens (rows, 2), log-probabilities (rows, 2) and ranks (rows) on the CPU; a rank is 1, or 2 for any other."""
        found = []
        slices = CACHED_ROWS if rows.device.type == "cpu" else ROWS_AT_ONCE
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            logits = self._runner.model.compute_logits(rows[begin : begin + ROWS_AT_ONCE])
            own = targets[begin : begin + ROWS_AT_ONCE, None]
            found += [_own_and_best(*part) for part in zip(logits.split(slices), own.split(slices), strict=True)]
        if not found:
            return torch.empty(0, 2, dtype=torch.int32), torch.empty(0, 2), torch.empty(0, dtype=torch.int32)
        tokens, logprobs = (torch.cat(column).cpu() for column in zip(*found, strict=True))
        return tokens.int(), logprobs, 1 + (logprobs[:, 0] < logprobs[:, 1]).int()


def _own_and_best(logits: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logprobs = logits.float().log_softmax(-1)
    # Which token is the most likely one is not asked, and costs more than all the rest.
    return own.expand(-1, 2), torch.cat([logprobs.gather(1, own), logprobs.amax(-1, keepdim=True)], 1)
