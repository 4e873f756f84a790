"""Waiting for devices of this machine, in turn with every other campaign on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path

from core.campaign import CampaignSpec, FleetSpec
from core.log import log
from core.model.placement import PlannedModel
from core.model.weights import read_ahead
from core.planning.schedule.turns import UNKNOWN_SECONDS, Demand
from engines.distributed.cluster import claimed, end_unused, serving
from engines.distributed.engine import service_name
from engines.engine import EngineConfig
from engines.host.queue import Ticket
from engines.host.slots import DevicePool, Held, device_pool, holders

POLL_SECONDS = 0.2  # a lock cannot be awaited without a thread that nobody could interrupt
PATIENCE_SECONDS = 5.0


class QueuePlace:
    """A model's place in the queue for devices. Taken early, it is not overtaken by models that are ready sooner.

    The model is expected to be on its devices for some ``seconds``. On Kubernetes there is no queue here: its cluster has its own.
    """

    def __init__(self, spec: CampaignSpec, planned: PlannedModel, fleet: FleetSpec, seconds: float | None) -> None:
        self._spec, self._fleet = spec, fleet
        self._seconds = UNKNOWN_SECONDS if seconds is None else seconds
        self._drawn = None if self._is_on_kubernetes(planned) else self._ticket(planned, ready=False)

    def ticket(self, planned: PlannedModel) -> Ticket:
        """Return a ticket that is ready, in the old place if the placement needs the same devices still."""
        drawn, self._drawn = self._drawn, None
        wanted = (self._pool(planned), planned.placement.replica_gpus)
        if drawn is not None and (drawn.pool, drawn.demand.gpus) == wanted:
            drawn.be_ready()
            return drawn
        if drawn is not None:
            drawn.drop()
        return self._ticket(planned, ready=True)

    def hold(self, planned: PlannedModel, config: EngineConfig) -> AbstractAsyncContextManager[Held]:
        """Wait for the devices of a placement; see `hold`. On Kubernetes there is nothing to wait for here."""
        if self._is_on_kubernetes(planned):
            return nullcontext(Held(DevicePool("kuberay", ()), (), ()))
        local = planned.placement.engine == "distributed" and self._fleet.ray_address is None
        return hold(
            self.ticket(planned),
            service=service_name(config) if local else None,
            idle_seconds=self._spec.policy.service_idle_seconds,
            weights=[Path(config.model, name) for name in planned.checkpoint.weight_files],
        )

    def close(self) -> None:
        """Leave the queue, if the ticket was not handed out."""
        if self._drawn is not None:
            self._drawn.drop()

    def _is_on_kubernetes(self, planned: PlannedModel) -> bool:
        return planned.placement.engine == "distributed" and self._fleet.kuberay is not None

    def _ticket(self, planned: PlannedModel, *, ready: bool) -> Ticket:
        name = planned.model.name
        demand = Demand(
            label=name,
            gpus=planned.placement.replica_gpus,
            seconds=self._seconds,
            campaign=self._spec.name,
            priority=self._spec.policy.priority,
            leads=name in self._spec.compared_with,
        )
        return Ticket(self._pool(planned), demand, ready=ready)

    def _pool(self, planned: PlannedModel) -> DevicePool:
        return device_pool(self._fleet, planned.placement.engine, os.environ)


@asynccontextmanager
async def hold(
    ticket: Ticket, *, service: str | None = None, idle_seconds: float = 0.0, weights: Sequence[Path] = ()
) -> AsyncIterator[Held]:
    """Wait for the devices of ``ticket``, which is used up, and release them at the end.

    Where a local cluster has ``service`` loaded, that is waited for instead, with its own devices, which it keeps. Clusters that
    are kept loaded for nobody make room when their devices are missing. The first in the queue has its ``weights`` read ahead.
    """
    pool, label = ticket.pool, ticket.demand.label
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
                if weights:
                    await asyncio.to_thread(read_ahead, weights)
                    weights = ()
            if waited <= PATIENCE_SECONDS < waited + POLL_SECONDS:
                others = ", ".join(f"{holder.device} is held by {holder.label}" for holder in holders(pool))
                why = others or "others wait for them too"
                log.info(f"{label}: waits for {ticket.demand.gpus} of {len(pool.names)} devices; {why}")
            await asyncio.sleep(POLL_SECONDS)
            waited += POLL_SECONDS
    finally:
        ticket.drop()
    try:
        yield held
    finally:
        held.release()
