"""Data parallel: how many replicas a model may have, and when they come and go. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from core.campaign import FleetSpec, ModelSpec, PolicySpec
from core.errors import UserError
from core.model.placement import Placement
from core.request import Loglikelihood, Request

CHOICES_PER_DOC = 4  # of a multiple-choice doc; a generation is about as much work as all of them


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
    loading costs most, has those that a person asks for. Raises `core.errors.UserError` where its Ray cluster is not ours to make.
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
