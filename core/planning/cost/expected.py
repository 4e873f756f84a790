"""When each model of a campaign is expected to start and end: estimates, put in time by the scheduler itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.planning.cost.estimate import CampaignEstimate
from core.planning.schedule.jobs import Node
from core.planning.schedule.order import SchedulingPolicy
from core.planning.schedule.state import Arrived, State, after
from core.planning.schedule.step import timetable


@dataclass(frozen=True)
class Expected:
    """What one model is expected to take: seconds to load and run ``benchmarks`` of them, with an 80% interval.

    It ``starts`` and ``ends`` then (unix seconds) if every model takes what is expected and nobody else needs the devices.
    """

    seconds: float
    low: float
    high: float
    benchmarks: int
    starts: float
    ends: float


def expectations(estimate: CampaignEstimate, nodes: Sequence[Node], now: float) -> dict[str, Expected]:
    """Return what to expect of each model by its name, if all of them queue at ``now``."""
    jobs = {model.name: model.job() for model in estimate.models}
    state = after(State(tuple(nodes)), 0.0, [Arrived(tuple(jobs.values()))])
    slots = timetable(state, SchedulingPolicy()).slots
    found = {}
    for model in estimate.models:
        if (slot := slots.get(jobs[model.name].key)) is not None:
            timed = next(each for each in model.timed if each.kind == slot.option.kind)
            low, middle, high = timed.seconds
            found[model.name] = Expected(middle, low, high, len(model.workloads), now + slot.start, now + slot.ends)
    return found


def totals(estimate: CampaignEstimate) -> dict[str, Any]:
    """The campaign's makespan in seconds, GPU-hours and cost, each as low, median and high; for its manifest."""
    return {
        "makespan_seconds": list(estimate.makespan),
        "gpu_hours": list(estimate.gpu_hours),
        "cost": None if estimate.cost is None else list(estimate.cost),
    }
