"""Prompt log-probabilities of the scored positions only, computed in vLLM's workers.

vLLM computes logits of prompt positions that were not asked for: its first model runner those of whole prompts, request by request,
its second those of a whole step. Here one product serves all requests of a step, and of each only the positions from the request's
``FIRST_SCORED`` on; requests without that are vLLM's. It stands in for a private method of either runner
(`engines.session.score_rows_v1`, `engines.session.score_rows_v2`), so `engines.session.row_check` compares the two before it is
relied on, and vLLM's own stays where they differ. The second runner's ``prompt_logprob_token_ids`` bounds its rows too, but cannot
tell which token is the most likely one, so not whether a continuation is greedy. Imported in vLLM's worker processes only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from vllm import SamplingParams
from vllm.v1.outputs import LogprobsTensors

# Key of SamplingParams.extra_args: the first prompt position whose row is wanted.
FIRST_SCORED = "steelyard_first_scored"
ROWS_AT_ONCE = 1024  # of logits in memory
CACHED_ROWS = 16  # of which as many pass through a processor's cache together: three times as fast as all at once
DEVICE_ROWS = 256  # and as many through float32 on a GPU, whose memory vLLM has measured without them

Logits = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Part:
    """Rows of one request within a step: those that predict its prompt's positions from ``first`` up to ``end``.

    ``begin`` is the first of them in the step's hidden states; ``last`` says that the prompt ends here.
    """

    request: str
    first: int
    end: int
    begin: int
    last: bool

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.end - self.first


def first_scored(params: SamplingParams) -> int | None:
    """Return the first prompt position whose row is wanted; None for requests that are vLLM's."""
    return (params.extra_args or {}).get(FIRST_SCORED) if params.prompt_logprobs is not None else None


def part_of(request: str, wanted: int, *, computed: int, tokens: int, length: int, offset: int) -> Part:
    """Return the part of a prompt of ``length`` tokens in a step that puts ``tokens`` of them behind the ``computed`` ones.

    Rows are wanted of positions from ``wanted`` on; ``offset`` is where the request's hidden states begin.
    """
    first = max(wanted, computed + 1)
    # The row of the prompt's last token predicts the first generated one.
    end = max(first, min(computed + tokens + 1, length))
    return Part(request, first, end, offset + first - 1 - computed, last=computed + tokens >= length)


def score(logits: Logits, hidden_states: torch.Tensor, parts: Sequence[Part], targets: torch.Tensor) -> LogprobsTensors:
    """Return (own, most likely) log-probabilities of the tokens ``targets``, those of all parts one behind the other.

    Shapes (positions, 2) for tokens and log-probabilities, (positions) for ranks, of which one is 1, or 2 for any other.
    """
    rows = torch.cat([hidden_states[part.begin : part.begin + part.size] for part in parts])
    slices = CACHED_ROWS if rows.device.type == "cpu" else DEVICE_ROWS
    found = [torch.empty(0, 2, device=rows.device)]
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        computed = logits(rows[begin : begin + ROWS_AT_ONCE])
        own = targets[begin : begin + ROWS_AT_ONCE, None]
        found += [_own_and_best(*part) for part in zip(computed.split(slices), own.split(slices), strict=True)]
    logprobs = torch.cat(found)
    # Which token is the most likely one is not asked, and costs more than all the rest.
    tokens = targets[:, None].expand(-1, 2).int()
    ranks = 1 + (logprobs[:, 0] < logprobs[:, 1]).int()
    return LogprobsTensors(tokens, logprobs, ranks)


def parted(parts: Sequence[Part], rows: LogprobsTensors) -> list[LogprobsTensors]:
    """Return the rows of each part."""
    sizes = [part.size for part in parts]
    return [LogprobsTensors(*columns) for columns in zip(*(each.split(sizes) for each in rows[:3]), strict=True)]


def _own_and_best(logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    logprobs = logits.float().log_softmax(-1)
    return torch.cat([logprobs.gather(1, own), logprobs.amax(-1, keepdim=True)], 1)
