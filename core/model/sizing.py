"""Decisions by the amount of work: how many replicas a model has and when, and whether its engines start eagerly."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from core.campaign import CampaignSpec, FleetSpec, ModelSpec, PolicySpec
from core.cell_work import CellWork
from core.errors import UserError
from core.log import log
from core.model.placement import Placement, PlannedModel
from core.request import Generate, Loglikelihood, Request

CHOICES_PER_DOC = 4  # of a multiple-choice doc; a generation is about as much work as all of them
EAGER = "enforce_eager"  # vLLM's own name


def weight(request: Request) -> int:
    """Work of a request in quarters of a doc: 1 for a scored choice, 4 for a generation or a rolling text."""
    return 1 if isinstance(request, Loglikelihood) else CHOICES_PER_DOC


def docs_of(requests: Iterable[Request]) -> int:
    """Work of ``requests`` in docs, each a generated answer, a text, or four scored choices; rounded up."""
    return math.ceil(sum(map(weight, requests)) / CHOICES_PER_DOC)


def with_replicas(
    placement: Placement, model: ModelSpec, fleet: FleetSpec, policy: PolicySpec, docs: int | None = None
) -> Placement:
    """Return ``placement`` with the most replicas that ``docs`` (None: as many as there may be) pay for, and why.

    They are a wish: a model waits for the devices of one and gets further ones where they are idle. A distributed model, whose
    loading costs most, has those that the spec asks for. Raises `core.errors.UserError` where its Ray cluster is not ours to make.
    """
    if placement.engine == "distributed":
        if model.replicas in (None, 1):
            return placement
        if fleet.ray_address or fleet.kuberay:
            raise UserError(
                f"replicas = {model.replicas}: a distributed model has one service on a Ray cluster that is not of this "
                "machine; leave replicas out"
            )
    devices = fleet.gpus * (fleet.nodes if fleet.device == "cpu" else 1) // placement.replica_gpus
    most = min(devices, model.replicas or policy.replicas_max, replicas_paid(model, policy, docs))
    if most <= 1:
        return placement
    if model.replicas:
        why = ", as asked for"
    elif docs is None:
        why = f", one per {policy.docs_per_replica:,} docs"
    else:
        why = f": {docs:,} docs, one per {policy.docs_per_replica:,}"
    return replace(
        placement, replicas=most, reason=f"{placement.reason} Up to {most} replicas where devices are idle{why}."
    )


def replicas_paid(model: ModelSpec, policy: PolicySpec, docs: int | None) -> int:
    """Replicas whose load time ``docs`` that are still to be answered pay for; those a person asked for always pay."""
    if docs is None or (model.replicas and docs):
        return model.replicas or policy.replicas_max
    return docs // policy.docs_per_replica


def replica_change(*, have: int, most: int, paid: int, lacking: int, gpus: int = 1) -> int:
    """Return how many replicas may come (more than 0) or have to go (less) now; the last one never.

    ``have`` are there or loading, ``most`` may be, ``paid`` is `replicas_paid`; others wait for ``lacking`` devices, and each
    replica has ``gpus``.
    """
    if have < 1:
        return 0
    if lacking:
        return -min(math.ceil(lacking / gpus), have - 1)
    return max(0, min(most, paid) - have)


def tokens_ahead(requests: Iterable[Request]) -> int:
    """Count the tokens to generate at most; what is only scored takes one step."""
    return sum(request.sampling.max_tokens if isinstance(request, Generate) else 1 for request in requests)


def starts_eagerly(
    placement: Placement, vllm: Mapping[str, Any], fleet: FleetSpec, policy: PolicySpec, tokens: int
) -> str | None:
    """Return why an engine starts eagerly, as an addition to its placement's reason; None where that is not decided here.

    Compiling and capturing graphs costs a fixed time, and saves some in every step. A distributed model stays loaded for others,
    a CPU's engine is always eager, and what ``vllm`` says wins.
    """
    if placement.engine != "lightweight" or fleet.device == "cpu" or EAGER in vllm or tokens >= policy.compile_tokens:
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
        model=model.model_copy(update={"vllm": {**model.vllm, EAGER: True}}),
        placement=replace(placement, reason=f"{placement.reason} It {why}."),
    )
