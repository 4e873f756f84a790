"""One model on its devices, from the moment they are held until they are given back."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from core.campaign import CampaignSpec, FleetSpec
from core.model.placement import PlannedModel, loads_from_here
from core.monitor.readings import Monitor
from core.sample import Scoring
from core.store.quality import facts_of
from core.store.spool import Spool
from engines.bench.answering import Answering, CellRun
from engines.bench.growth import as_used, replicated
from engines.bench.job import Job
from engines.bench.monitoring import monitored
from engines.bench.replica import Build
from engines.distributed.cluster import Cluster, ClusterSpec, attach
from engines.distributed.engine import DistributedEngine, ServiceReplica, service_name
from engines.engine import Engine, EngineConfig, EngineInfo
from engines.host.slots import Held, cores_of
from engines.process.lightweight import LightweightEngine

T = TypeVar("T")


class Bench:
    """One model on its devices, with a Ray cluster where the placement needs one, and an engine or replicas of it, all monitored.

    An async context manager; within it `hold`, a cluster where one is needed, `build` and `open`, in that order. ``keep`` leaves a
    service loaded for the next, but never after a failure. ``spool`` takes answers while the store does not.
    """

    engine: Engine
    info: EngineInfo
    held: Held

    def __init__(self, job: Job, placed: PlannedModel, spool: Spool | None = None, *, keep: bool = True) -> None:
        self.job, self.placed = job, placed
        self.config = engine_config(job.spec, placed, job.fleet, job.weights)
        self.cluster: ClusterSpec | None = None
        self.monitor: Monitor | None = None
        self._spool, self._keep = spool, keep
        self._stack = AsyncExitStack()
        self._restarted: list[Cluster] = []
        self._built = False
        self._held_at = 0.0

    async def __aenter__(self) -> Bench:
        return self

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Close the engine and release what it stood on, as far as that was reached."""
        with ExitStack() as until_free:
            try:
                if self._built:
                    until_free.enter_context(self.job.timeline.span("close"))
                    await asyncio.shield(asyncio.to_thread(self.engine.close, keep=self._keep and error is None))
                    if self.cluster is None:
                        self.held.release()  # the last readings need no device
                        until_free.close()
            finally:
                await self._stack.__aexit__(kind, error, trace)

    async def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter a context that is left when the engine is closed, last entered first."""
        return await self._stack.enter_async_context(context)

    async def hold(self) -> None:
        """Wait for the placement's devices, in turn with every other campaign of this machine."""
        job = self.job
        with job.timeline.span("wait"):
            self.held = await self.enter(job.queue_place.hold(self.placed, self.config))
        self._held_at = time.monotonic()

    async def build(self) -> None:
        """Build the engine on what is held, not yet open, and begin to watch it."""
        job = self.job
        self._stack.push_async_callback(self._leave_restarted)
        self.engine, holder = await self.enter(
            replicated(job.spec, self.placed, job.fleet, self.held, self._engine_on, job.recovery.decide)
        )
        self._built = True
        self.monitor = await self.enter(monitored(job.spec, job.fleet, job.model, holder, self.engine, job.run))

    async def open(self) -> EngineInfo:
        """Load the model, or find its service alive. Returns what came up; `info` counts the Ray cluster's start as loading too."""
        found = await asyncio.to_thread(self.engine.open)
        self.info = replace(found, load_seconds=time.monotonic() - self._held_at) if found.load_seconds else found
        await asyncio.to_thread(self.job.claim.end)
        return found

    @property
    def answering(self) -> Answering:
        """The context in which a cell is answered."""
        job = self.job
        patience = job.spec.policy.store_patience_seconds
        about = {
            "engine": self.info.engine,
            "placement": asdict(as_used(self.placed, self.engine).placement),
            "vllm_version": self.info.vllm_version,
        }
        return Answering(
            self.engine, job.spec.results, job.control, self.monitor, job.timeline, self._spool, patience, about
        )

    def facts_of(self, run: CellRun, scoring: Scoring) -> dict[str, Any]:
        """Return how a cell was computed here, for its commit record. JSON values."""
        job, info, placed = self.job, self.info, as_used(self.placed, self.engine)
        faults = job.recovery.record()
        return {
            "engine": info.engine,
            "placement": asdict(placed.placement),
            "vllm_version": info.vllm_version,
            "load_seconds": info.load_seconds,
            "seconds": run.seconds,
            "resumed": run.resumed,
            "prompt_tokens": run.prompt_tokens,
            "cached_tokens": run.cached_tokens,
            "completion_tokens": run.completion_tokens,
            "monitor": run.monitor,
            **facts_of(scoring),
            "trust_remote_code": placed.model.trust_remote_code,
            **({"adaptive": run.adaptive} if run.adaptive else {}),
            **({"faults": faults} if faults else {}),
            **({"estimate": asdict(job.expected)} if job.expected else {}),
        }

    def _engine_on(self, held: Held) -> Build:
        """Return a function that builds the engine on ``held``, as often as need be."""
        built = 0

        def build(options: Mapping[str, Any]) -> Engine:
            nonlocal built
            built += 1
            config = replace(self.config, extra={**self.config.extra, **options})
            # A local cluster may have died with the engine; a replica's is its own.
            if built > 1 and self.cluster is not None and held.devices == self.cluster.devices:
                self._restarted.append(attach(self.cluster, service_name(config), held.descriptors))
            return build_engine(self.job.spec, self.placed, config, held, self.cluster)

        return build

    async def _leave_restarted(self) -> None:
        for cluster in self._restarted:
            await asyncio.shield(asyncio.to_thread(cluster.leave, 0.0))


def build_engine(
    spec: CampaignSpec, planned: PlannedModel, config: EngineConfig, held: Held, cluster: ClusterSpec | None
) -> Engine:
    """Return the engine of a placement, or a replica of it, on the devices that are held for it, not yet open."""
    if cluster is None:
        return LightweightEngine(replace(config, devices=held.devices, cores=_cores(config, held)), held.descriptors)
    if cluster.address is None and held.devices != cluster.devices:
        return ServiceReplica(config, replace(cluster, devices=held.devices), held.descriptors)
    return DistributedEngine(config, cluster, spec.policy.service_idle_seconds)


def _cores(config: EngineConfig, held: Held) -> tuple[int, ...]:
    if config.device != "cpu" or "VLLM_CPU_OMP_THREADS_BIND" in os.environ:
        return ()
    return cores_of(held.devices, len(held.pool.names), os.sched_getaffinity(0))


def engine_config(spec: CampaignSpec, planned: PlannedModel, fleet: FleetSpec, weights: Path) -> EngineConfig:
    """Return what an engine of this placement loads, whatever its devices."""
    model, placement = planned.model, planned.placement
    memory = {} if fleet.device == "cpu" else {"gpu_memory_utilization": spec.policy.gpu_memory_utilization}
    return EngineConfig(
        model=str(weights),
        dtype=model.dtype,
        max_model_len=placement.max_model_len,
        tensor_parallel=placement.tensor_parallel,
        pipeline_parallel=placement.pipeline_parallel,
        trust_remote_code=model.trust_remote_code,
        device=fleet.device,
        gpu_memory_gb=fleet.gpu_memory_gb,
        seed=spec.seed,
        checkpoint=None if loads_from_here(planned, fleet) else planned.checkpoint,
        stream=model.stream_weights,
        extra=memory | model.vllm,
    )
