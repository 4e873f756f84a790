"""Readings of devices, host and engine while a model is evaluated, which land beside the results."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

from core.campaign import CampaignSpec, FleetSpec
from core.errors import UserError
from core.log import log
from core.monitor.prometheus import Exporter
from core.monitor.readings import HostReader, Monitor, Reading, Sink, engine_reader, read_gpus
from core.monitor.summary import summarise
from core.storage.open import open_storage
from core.store.monitor import MonitorWriter
from engines.bench.growth import Replicas
from engines.bench.replica import engines_of
from engines.engine import Engine
from engines.host.slots import Held, visible_names


@asynccontextmanager
async def monitored(
    spec: CampaignSpec, fleet: FleetSpec, model: str, holder: Held | Replicas, engine: Engine, run: str
) -> AsyncIterator[Monitor]:
    """Read every ``spec.monitor_seconds`` within the block. To be left once the engine is closed, so that its end is on record."""
    local = fleet.device == "cuda" and fleet.ray_address is None and fleet.kuberay is None
    exporter = None if spec.prometheus_port is None else await asyncio.to_thread(_exporter, spec.prometheus_port)

    # Replicas and their devices come and go.
    def gpus() -> Iterable[Reading]:
        return read_gpus(visible_names(holder.devices, os.environ)) if local else ()

    def processes() -> Iterable[Reading]:
        return [reading for each in engines_of(engine) for reading in engine_reader(each.stats)()]

    def start() -> tuple[ExitStack, Monitor]:
        with ExitStack() as stack:
            writer = stack.enter_context(MonitorWriter(open_storage(spec.results), spec.name, run, model))
            sinks: list[Sink] = [writer]
            if exporter is not None:
                sinks.append(exporter.sink(model))
                stack.callback(exporter.forget, model)
            monitor = stack.enter_context(Monitor([HostReader(), gpus, processes], sinks, spec.monitor_seconds))
            return stack.pop_all(), monitor

    stack, monitor = await asyncio.to_thread(start)
    try:
        yield monitor
    finally:
        await asyncio.shield(asyncio.to_thread(stack.close))


@functools.cache
def _exporter(port: int) -> Exporter | None:
    """Serve one endpoint until the process ends; a port that is taken is no reason to evaluate nothing."""
    try:
        return Exporter(port)
    except UserError as error:
        log.warning(f"no readings for Prometheus: {error}")
        return None


@contextmanager
def summed_up(monitor: Monitor | None) -> Iterator[dict[str, float]]:
    """Yield a dict that holds, after the block, the summary of the readings within it."""
    summary: dict[str, float] = {}
    if monitor is None:
        yield summary
        return
    began = time.time()
    monitor.read_now()
    try:
        yield summary
    finally:
        monitor.read_now()
        summary.update(summarise(monitor.readings(), began, time.time()))
