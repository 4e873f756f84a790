"""One model's part of a run: what is asked, and what goes with it from one engine to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.campaign import CampaignSpec, FleetSpec
from core.cell_work import CellWork
from core.model.placement import PlannedModel
from core.model.sizing import compiled_or_not
from core.monitor.timeline import Timeline
from core.planning.cost.expected import Expected
from engines.bench.growth import spread
from engines.bench.recovery import Recovery
from engines.bench.waiting import QueuePlace
from engines.control import Control
from engines.process.lightweight import Claim

Part = Literal["benchmarks", "judge", "canary"]


@dataclass
class Job:
    """What every step of a model's flow reads. Only placing and fetching write it: ``recovery`` moves the model, ``weights`` come.

    ``weights`` is the checkpoint on local disk, ``expected`` what the part is expected to take, if that is known.
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
        """Whether the model is to go on under another placement; `placed` is that one from then on."""
        return not self.control.is_cancelled and self.recovery.move() is not None


async def fitted(job: Job, works: Sequence[CellWork] | None) -> PlannedModel:
    """Return the job's placement with the replicas and the way to start that ``works`` pay for; None is more than is known yet."""
    placed = await spread(job.spec, job.placed, job.fleet, works)
    return await compiled_or_not(job.spec, placed, job.fleet, works)
