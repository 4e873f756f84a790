"""Provisioning: from a placement and the devices it was given to an engine that answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from core.log import log
from engines.bench.bench import Bench
from engines.distributed import kuberay
from engines.distributed.cluster import Cluster, ClusterSpec, attach
from engines.distributed.engine import service_name
from engines.distributed.kuberay_manifest import MODEL_RESOURCE
from tasks.steps import step


async def provision(bench: Bench) -> None:
    """Have the Ray cluster that the bench's placement needs, until its engine is closed. A lightweight one needs none."""
    if bench.placed.placement.engine != "lightweight":
        bench.cluster = await bench.enter(provisioned(bench))


@asynccontextmanager
async def provisioned(bench: Bench) -> AsyncIterator[ClusterSpec]:
    """Yield the Ray cluster of a distributed placement, up and running.

    At the end a local one without other users ends after the policy's idle time, at once where the block failed; one on
    Kubernetes is deleted; an existing one is left alone.
    """
    job, placement, held = bench.job, bench.placed.placement, bench.held
    fleet, campaign = job.fleet, job.spec.name
    async with AsyncExitStack() as stack:
        wanted = ClusterSpec(held.devices, fleet.gpus, fleet.device, fleet.ray_address)
        if fleet.kuberay is not None:
            made = kuberay.Entered(
                kuberay.provision(fleet.kuberay, placement, fleet.gpus, campaign=campaign, model=job.model, run=job.run)
            )
            stack.push_async_callback(made.leave)
            address = await make_on_kubernetes(made, job.model)
            wanted = replace(wanted, address=address, service_resource=MODEL_RESOURCE)
        cluster = await attach_cluster(wanted, service_name(bench.config), held.descriptors, job.model)
        idle_seconds = 0.0
        try:
            yield wanted
            idle_seconds = job.spec.policy.service_idle_seconds
        finally:
            await asyncio.shield(asyncio.to_thread(cluster.leave, idle_seconds))


@step("provision", "Ray for {model}")
async def attach_cluster(wanted: ClusterSpec, service: str, held: tuple[int, ...], model: str) -> Cluster:
    """Find the Ray cluster, or start a local one on devices that are held."""
    cluster = await asyncio.to_thread(attach, wanted, service, held)
    log.info(f"{model}: Ray cluster at {cluster.address}")
    return cluster


@step("provision", "KubeRay for {model}")
async def make_on_kubernetes(made: kuberay.Entered, model: str) -> str:
    """Return host:port of the head of a Ray cluster on Kubernetes, once that is up."""
    log.info(f"{model}: asks Kubernetes for a Ray cluster")
    return await made.enter()


@step("open engine", "of {bench.job.model}")
async def open_engine(bench: Bench) -> None:
    """Load the model, or find its service alive."""
    info = await bench.open()
    how = "found loaded" if info.reused else f"loaded in {info.load_seconds:.0f} s"
    log.info(f"{bench.job.model}: {info.engine} engine {how}")
