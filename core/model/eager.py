"""Whether a model is compiled on its GPU before it answers, or starts eagerly: decided by how much there is to answer. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from core.campaign import CampaignSpec, FleetSpec, PolicySpec
from core.cell_work import CellWork
from core.log import log
from core.model.placement import Placement, PlannedModel
from core.request import Generate, Request

OPTION = "enforce_eager"  # vLLM's own name


def tokens_ahead(requests: Iterable[Request]) -> int:
    """Count the tokens to generate at most; what is only scored takes one step."""
    return sum(request.sampling.max_tokens if isinstance(request, Generate) else 1 for request in requests)


def starts_eagerly(
    placement: Placement, vllm: Mapping[str, Any], fleet: FleetSpec, policy: PolicySpec, tokens: int
) -> str | None:
    """Return why an engine starts eagerly, as an addition to its placement's reason; None where that is not ours to say.

    Compiling and capturing graphs costs a fixed time, and saves some in every step. A distributed model stays loaded for others,
    a CPU's engine is always eager, and what ``vllm`` says wins.
    """
    if placement.engine != "lightweight" or fleet.device == "cpu" or OPTION in vllm or tokens >= policy.compile_tokens:
        return None
    return f"starts eagerly: at most {tokens:,} tokens to generate (compiled from {policy.compile_tokens:,})"


async def compiled_or_not(
    spec: CampaignSpec, planned: PlannedModel, fleet: FleetSpec, works: Sequence[CellWork] | None
) -> PlannedModel:
    """Return ``planned`` to start eagerly where ``works`` are few; None stands for more than could be prepared by now."""
    model, placement = planned.model, planned.placement
    decide = partial(starts_eagerly, placement, model.vllm, fleet, spec.policy)
    if works is None or decide(0) is None:  # then no number of tokens would
        return planned
    todo = [work.benchmark for work in works if not work.complete]
    why = decide(await asyncio.to_thread(lambda: sum(tokens_ahead(benchmark.requests()) for benchmark in todo)))
    if why is None:
        return planned
    log.info(f"{model.name}: {why}")
    return replace(
        planned,
        model=model.model_copy(update={"vllm": {**model.vllm, OPTION: True}}),
        placement=replace(placement, reason=f"{placement.reason} It {why}."),
    )
