"""`engines.session.score_rows` in vLLM's second model runner, the one that GPUs have."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from vllm import SamplingParams
from vllm.v1.outputs import LogprobsTensors

from engines.session.score_rows import Logits, Part, first_scored, part_of, parted, score

WORKER = "prompt_logprobs_worker"
COMPUTED_FROM = ["logits_fn", "hidden_states", "input_batch", "all_token_ids", "num_computed_tokens", "prompt_lens"]
PARAMETERS = {
    "add_request": ["req_id", "req_idx", "sampling_params"],
    "remove_request": ["req_id"],
    "compute_prompt_logprobs": COMPUTED_FROM,
}


def switch(runner: Any, on: bool) -> bool:
    """Switch a runner to scored rows only, or back, while it has no requests. Returns whether it now does as told."""
    if not hasattr(runner, WORKER):
        return False
    worker = getattr(runner, WORKER)
    own = worker.own if isinstance(worker, ScoredRowsV2) else worker
    if own is None:  # this rank of a pipeline has no logits
        return True
    if on and not _is_known(own):
        return False
    setattr(runner, WORKER, ScoredRowsV2(own) if on else own)
    return True


def _is_known(worker: Any) -> bool:
    return all(
        hasattr(worker, name) and list(inspect.signature(getattr(worker, name)).parameters) == parameters
        for name, parameters in PARAMETERS.items()
    ) and hasattr(worker, "uses_prompt_logprobs")


class ScoredRowsV2:
    """Stands before vLLM's ``PromptLogprobsWorker``, which is ``own`` and keeps what is its."""

    def __init__(self, own: Any) -> None:
        self.own = own
        self._wanted: dict[str, int] = {}  # first position by request, until its prompt has ended
        self._rows: dict[str, list[LogprobsTensors]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def add_request(self, req_id: str, req_idx: int, sampling_params: SamplingParams) -> None:
        """Note a request; one that was preempted begins anew."""
        self.own.add_request(req_id, req_idx, sampling_params)
        if (wanted := first_scored(sampling_params)) is not None:
            self.own.uses_prompt_logprobs[req_idx] = False
            self._wanted[req_id] = wanted
            self._rows[req_id] = []

    def remove_request(self, req_id: str) -> None:
        """Forget a request."""
        self.own.remove_request(req_id)
        self._wanted.pop(req_id, None)
        self._rows.pop(req_id, None)

    def compute_prompt_logprobs(
        self,
        logits_fn: Logits,
        hidden_states: torch.Tensor,
        input_batch: Any,
        all_token_ids: torch.Tensor,
        num_computed_tokens: torch.Tensor,
        prompt_lens: np.ndarray,
    ) -> dict[str, LogprobsTensors]:
        """Return the rows of each prompt that ends in this step. Nothing here waits for the device."""
        ended: dict[str, LogprobsTensors] = self.own.compute_prompt_logprobs(
            logits_fn, hidden_states, input_batch, all_token_ids, num_computed_tokens, prompt_lens
        )
        places, parts = self._parts(input_batch, prompt_lens)
        if not parts:
            return ended
        targets = torch.cat(
            [all_token_ids[place, part.first : part.end] for place, part in zip(places, parts, strict=True)]
        ).long()
        rows = score(logits_fn, hidden_states, parts, targets)
        for part, found in zip(parts, parted(parts, rows), strict=True):
            self._rows[part.request].append(found)
            if part.last:
                ended[part.request] = LogprobsTensors.cat(self._rows.pop(part.request))
                del self._wanted[part.request]
        return ended

    def _parts(self, batch: Any, prompt_lens: np.ndarray) -> tuple[list[int], list[Part]]:
        """Return the parts of this step, and their requests' places in the runner's state."""
        places, parts = [], []
        for index, request in enumerate(batch.req_ids):
            if (wanted := self._wanted.get(request)) is None:
                continue
            place = int(batch.idx_mapping_np[index])
            places.append(place)
            part = part_of(
                request,
                wanted,
                computed=int(batch.num_computed_prefill_tokens_np[index]),
                tokens=int(batch.num_scheduled_tokens[index]),
                length=int(prompt_lens[place]),
                offset=int(batch.query_start_loc_np[index]),
            )
            parts.append(part)
        return places, parts
