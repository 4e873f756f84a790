"""From tasks/artifacts.py."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from core.campaign import CampaignSpec, FleetSpec
from core.log import log
from core.model.placement import PlannedModel
from core.planning.ladder import QUOTED, EngineFault, Step, next_step
from engines.bench.slot import Build
from engines.distributed.cluster import Cluster, ClusterSpec, attach
from engines.distributed.engine import service_name
from engines.engine import Engine, EngineConfig
from engines.host.slots import Held


class Recovery:
    """The steps taken for one model, by whichever of its engines. Any thread may ask for the next."""

    def __init__(self, spec: CampaignSpec, planned: PlannedModel, fleet: FleetSpec) -> None:
        self._lock = threading.Lock()
        self._spec, self._fleet, self.planned = spec, fleet, planned
        self._steps: list[Step] = []
        self._moved: PlannedModel | None = None
        self._record: list[dict[str, Any]] = []

    def decide(self, fault: EngineFault) -> Step:
        """Return what to do about ``fault`` (`core.planning.ladder`), and say it."""
        with self._lock:
            step = next_step(fault, self._steps, self.planned, self._fleet, self._spec.policy)
            message = fault.message.strip().partition("\n")[0][:QUOTED]
            self._steps.append(step)
            self._moved = step.moved or self._moved
            self._record.append(
                {
                    "time": time.time(),
                    "fault": fault.kind,
                    "while": "loading" if fault.loading else "answering",
                    "message": message,
                    "action": step.action,
                    "reason": step.reason,
                }
            )
        log.warning(
            f"{self.planned.model.name}: engine failed ({fault.kind}): {message} → {step.action}: {step.reason}"
        )
        return step

    def record(self) -> list[dict[str, Any]]:
        """Return all faults so far with what was done, for the record. JSON values."""
        with self._lock:
            return list(self._record)

    def move(self) -> PlannedModel | None:
        """Return what the model is to run as from now on, once; None where it need not be moved."""
        with self._lock:
            moved, self._moved = self._moved, None
            self.planned = moved or self.planned
            return moved


def recovering(config: EngineConfig, build: Callable[[EngineConfig, bool], Engine]) -> Build:
    """Return how an engine is made of ``config``, as often as need be; ``build`` is told whether it is again."""
    built = 0

    def make(options: Mapping[str, Any]) -> Engine:
        nonlocal built
        built += 1
        return build(replace(config, extra={**config.extra, **options}), built > 1)

    return make


@asynccontextmanager
async def standing(cluster: ClusterSpec | None, held: Held) -> AsyncIterator[Callable[[EngineConfig], None]]:
    """Give what sees to it that a Ray cluster is there to start an engine on again: a local one may have died with it.

    To be left once the engine is closed.
    """
    found: list[Cluster] = []

    def stand(config: EngineConfig) -> None:
        if cluster is not None:
            found.append(attach(cluster, service_name(config), held.descriptors))

    try:
        yield stand
    finally:
        for each in found:
            await asyncio.shield(asyncio.to_thread(each.leave, 0.0))
