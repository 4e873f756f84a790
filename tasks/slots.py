"""Waiting for devices of this machine, in turn with every other campaign on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path

from core.campaign import CampaignSpec, FleetSpec
from core.plan import PlannedModel
from core.weights import read_ahead
from engines.distributed.cluster import claimed, end_unused, serving
from engines.distributed.engine import service_name
from engines.engine import EngineConfig
from engines.slots import DevicePool, Held, Ticket, device_pool, holders
from tasks.say import say

POLL_SECONDS = 0.2  # a lock cannot be awaited without a thread that nobody could interrupt
PATIENCE_SECONDS = 5.0


def hold_devices(
    spec: CampaignSpec, planned: PlannedModel, fleet: FleetSpec, config: EngineConfig
) -> AbstractAsyncContextManager[Held]:
    """Wait for the devices of a placement; see `hold`. On Kubernetes there is nothing to wait for here: its cluster has its own."""
    placement = planned.placement
    if placement.engine == "distributed" and fleet.kuberay is not None:
        return nullcontext(Held(DevicePool("kuberay", ()), (), ()))
    local = placement.engine == "distributed" and fleet.ray_address is None
    return hold(
        device_pool(fleet, placement.engine, os.environ),
        placement.replica_gpus,
        planned.model.name,
        service=service_name(config) if local else None,
        idle_seconds=spec.policy.service_idle_seconds,
        weights=Path(config.model),
    )


@asynccontextmanager
async def hold(
    pool: DevicePool,
    gpus: int,
    label: str,
    *,
    service: str | None = None,
    idle_seconds: float = 0.0,
    weights: Path | None = None,
) -> AsyncIterator[Held]:
    """Wait for ``gpus`` devices of ``pool`` and give them back at the end.

    Where a local cluster has ``service`` loaded, that is waited for instead: its own devices, which it keeps. Clusters that
    are kept loaded for nobody make room when their devices are what is missing. Whoever is next has its ``weights`` read ahead.
    Raises `ValueError` where the pool has fewer.
    """
    ticket = Ticket(pool, gpus, label)
    try:
        waited = 0.0
        while True:
            if service is not None and (cluster := await asyncio.to_thread(serving, service)):
                ticket.drop()
                with claimed(cluster.key, idle_seconds):
                    yield Held(pool, cluster.devices, ())
                return
            if (held := ticket.take()) is not None:
                break
            if ticket.is_first():
                await asyncio.to_thread(end_unused, pool.kind, pool.names)
                if weights is not None:
                    await asyncio.to_thread(read_ahead, weights)
                    weights = None
            if waited <= PATIENCE_SECONDS < waited + POLL_SECONDS:
                say(f"{label}: waits for {gpus} of {len(pool.names)} devices; {_held_by(pool)}")
            await asyncio.sleep(POLL_SECONDS)
            waited += POLL_SECONDS
    finally:
        ticket.drop()
    try:
        yield held
    finally:
        held.release()


def _held_by(pool: DevicePool) -> str:
    return (
        ", ".join(f"{holder.device} is held by {holder.label}" for holder in holders(pool))
        or "others wait for them too"
    )
