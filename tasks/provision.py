"""Provisioning: from a placement and the devices it was given to an engine that answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from core.campaign import CampaignSpec, FleetSpec
from core.log import say
from core.model.placement import PlannedModel
from engines.distributed import kuberay
from engines.distributed.cluster import Cluster, ClusterSpec, attach
from engines.distributed.engine import service_name
from engines.distributed.kuberay_manifest import MODEL_RESOURCE
from engines.engine import Engine, EngineConfig, EngineInfo
from engines.host.slots import Held


@asynccontextmanager
async def provisioned(
    spec: CampaignSpec, planned: PlannedModel, fleet: FleetSpec, config: EngineConfig, held: Held, run: str
) -> AsyncIterator[ClusterSpec | None]:
    """Give the Ray cluster of a placement, up and running; None where the placement needs none.

    At the end a local one that nobody else uses ends after the policy's idle time, at once where the block failed; one on
    Kubernetes is deleted; an existing one is left alone.
    """
    if planned.placement.engine == "lightweight":
        yield None
        return
    async with AsyncExitStack() as stack:
        wanted = ClusterSpec(held.devices, fleet.gpus, fleet.device, fleet.ray_address)
        if fleet.kuberay is not None:
            name = planned.model.name
            made = Entered(
                kuberay.provision(fleet.kuberay, planned.placement, fleet.gpus, campaign=spec.name, model=name, run=run)
            )
            stack.push_async_callback(made.leave)
            address = await provision_on_kubernetes(quote(made), planned.model.name)
            wanted = replace(wanted, address=address, service_resource=MODEL_RESOURCE)
        cluster = (await provision(wanted, service_name(config), held.descriptors, planned.model.name)).unquote()
        idle_seconds = 0.0
        try:
            yield wanted
            idle_seconds = spec.policy.service_idle_seconds
        finally:
            await asyncio.shield(asyncio.to_thread(cluster.leave, idle_seconds))


@task(name="provision", task_run_name="provision Ray for {model}", cache_policy=NO_CACHE)
async def provision(wanted: ClusterSpec, service: str, held: tuple[int, ...], model: str) -> quote[Cluster]:
    """Find the Ray cluster, or start a local one on devices that are held."""
    cluster = await asyncio.to_thread(attach, wanted, service, held)
    say(f"{model}: Ray cluster at {cluster.address}")
    return quote(cluster)


@task(name="provision", task_run_name="provision KubeRay for {model}", cache_policy=NO_CACHE)
async def provision_on_kubernetes(made: Entered, model: str) -> str:
    """Have Kubernetes make a Ray cluster and wait until it is up. Returns host:port of its head."""
    say(f"{model}: asks Kubernetes for a Ray cluster")
    return await made.enter()


class Entered:
    """A blocking context manager, entered and left on threads. Left while it is being entered, it is left as soon as it is in."""

    def __init__(self, context: AbstractContextManager[str]) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._inside, self._left = False, False

    async def enter(self) -> str:
        """Enter, and return what the context gives."""
        return await asyncio.to_thread(self._enter)

    async def leave(self) -> None:
        """Leave what was entered."""
        with self._lock:
            inside, self._inside, self._left = self._inside, False, True
        if inside:
            await asyncio.shield(asyncio.to_thread(self._context.__exit__, None, None, None))

    def _enter(self) -> str:
        given = self._context.__enter__()
        with self._lock:
            self._inside = not self._left
            if self._inside:
                return given
        self._context.__exit__(None, None, None)
        return given


@task(name="open engine", task_run_name="open engine of {model}", cache_policy=NO_CACHE)
async def open_engine(engine: Engine, model: str) -> EngineInfo:
    """Load the model, or find its service alive."""
    info = await asyncio.to_thread(engine.open)
    how = "found loaded" if info.reused else f"loaded in {info.load_seconds:.0f} s"
    say(f"{model}: {info.engine} engine {how}")
    return info
