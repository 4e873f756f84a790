"""One model's part of a run: what is asked, and the steps taken after faults, from one engine to the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.campaign import CampaignSpec, FleetSpec
from core.cell_work import CellWork
from core.log import log
from core.model.placement import PlannedModel
from core.model.sizing import compiled_or_not
from core.monitor.timeline import Timeline
from core.planning.cost.expected import Expected
from core.planning.ladder import QUOTED, EngineFault, Step, next_step
from engines.bench.growth import spread
from engines.bench.waiting import QueuePlace
from engines.control import Control
from engines.process.lightweight import Claim

Part = Literal["benchmarks", "judge", "canary"]


class Recovery:
    """The steps taken for one model after faults of its engines. Any thread may ask for the next."""

    def __init__(self, spec: CampaignSpec, planned: PlannedModel, fleet: FleetSpec) -> None:
        self._lock = threading.Lock()
        self._spec, self._fleet, self.planned = spec, fleet, planned
        self._steps: list[Step] = []
        self._moved: PlannedModel | None = None
        self._record: list[dict[str, Any]] = []

    def decide(self, fault: EngineFault) -> Step:
        """Return the step to take after ``fault`` (`core.planning.ladder`), and log it."""
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
        """Return all faults so far with the steps taken, for the record. JSON values."""
        with self._lock:
            return list(self._record)

    def move(self) -> PlannedModel | None:
        """Return the placement to move to, once; None where the model need not be moved."""
        with self._lock:
            moved, self._moved = self._moved, None
            self.planned = moved or self.planned
            return moved


@dataclass
class Job:
    """The input of every step of a model's flow. Placing and fetching alone write it: ``recovery`` moves it, ``weights`` come.

    ``weights`` is the checkpoint on local disk, ``expected`` the part's expected cost, if that is known.
    """

    spec: CampaignSpec
    fleet: FleetSpec
    run: str
    part: Part
    expected: Expected | None
    control: Control
    timeline: Timeline
    claim: Claim
    recovery: Recovery
    queue_place: QueuePlace
    weights: Path = Path()

    @property
    def placed(self) -> PlannedModel:
        """The model as it is to run now."""
        return self.recovery.planned

    @property
    def model(self) -> str:
        """The model's name in the campaign."""
        return self.placed.model.name

    def moves(self) -> bool:
        """Move the model where a fault asks for it; `placed` is its new placement from then on. Returns whether it moved."""
        return not self.control.is_cancelled and self.recovery.move() is not None


async def fitted(job: Job, works: Sequence[CellWork] | None) -> PlannedModel:
    """Return the job's placement with the replicas and the compilation that ``works`` pay for; None is more than is known yet."""
    placed = await spread(job.spec, job.placed, job.fleet, works)
    return await compiled_or_not(job.spec, placed, job.fleet, works)
