"""Starts and ends expected of each model of a campaign, by the scheduler itself; and what a run took in the end. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.monitor.timeline import Lane
from core.planning.cost.estimate import CampaignEstimate
from core.planning.schedule.jobs import Node, at_start
from core.planning.schedule.scheduler import SchedulingPolicy, timetable
from core.tables import duration, span_text


@dataclass(frozen=True)
class Expected:
    """The time one model is expected to take: seconds to load and run ``benchmarks`` of them, with an 80% interval.

    It ``starts`` and ``ends`` then (unix seconds) if every model takes what is expected and nobody else needs the devices.
    """

    seconds: float
    low: float
    high: float
    benchmarks: int
    starts: float
    ends: float


def expectations(estimate: CampaignEstimate, nodes: Sequence[Node], now: float) -> dict[str, Expected]:
    """Return the expectations of each model by its name, if all of them queue at ``now``."""
    jobs = {model.name: model.job() for model in estimate.models}
    state = at_start(nodes, jobs.values())
    slots = timetable(state, SchedulingPolicy()).slots
    found = {}
    for model in estimate.models:
        if (slot := slots.get(jobs[model.name].key)) is not None:
            timed = next(each for each in model.timed if each.kind == slot.option.kind)
            low, middle, high = timed.seconds
            found[model.name] = Expected(middle, low, high, len(model.workloads), now + slot.start, now + slot.ends)
    return found


def totals(estimate: CampaignEstimate) -> dict[str, Any]:
    """Return the campaign's makespan in seconds, GPU-hours and cost, each as low, median and high; for its manifest."""
    return {
        "makespan_seconds": list(estimate.makespan),
        "gpu_hours": list(estimate.gpu_hours),
        "cost": None if estimate.cost is None else list(estimate.cost),
    }


@dataclass(frozen=True)
class Spent:
    """``seconds`` from start to end, ``gpu_hours`` for which devices were held, and their ``cost`` where the fleet has a price."""

    seconds: float
    gpu_hours: float
    cost: float | None


def spent(run: Mapping[str, Any], lanes: Sequence[Lane]) -> Spent | None:
    """Add up a run by its manifest and timeline; None for one that is under way, or that held no device.

    Replicas that came and went count as the placement was planned, with one.
    """
    seconds = run.get("seconds")
    held = sum(lane.held_seconds * _gpus(run, lane.spans[0].model) for lane in lanes)
    if seconds is None or not held:
        return None
    price = price_of(run)
    hours = held / 3600.0
    return Spent(seconds, hours, None if price is None else price * hours)


def price_of(run: Mapping[str, Any]) -> float | None:
    """Return the price of a GPU-hour of a run's fleet; None where its spec does not say."""
    price: float | None = ((run.get("spec") or {}).get("fleet") or {}).get("price_per_gpu_hour")
    return price


def spent_line(run: Mapping[str, Any], lanes: Sequence[Lane]) -> str | None:
    """Return a line on what a run took and was expected to take; None where `spent` knows nothing."""
    took = spent(run, lanes)
    if took is None:
        return None
    line = f"{run['campaign']} took {duration(took.seconds)}, {took.gpu_hours:,.2f} GPU-hours"
    if took.cost is not None:
        line += f", cost {took.cost:,.2f}"
    estimate = run.get("estimate")
    if not estimate:
        return line
    low, middle, high = estimate["makespan_seconds"]
    line += f"; expected, as if nothing were stored: {duration(middle)} ({duration(low)} – {duration(high)})"
    line += f", {span_text(estimate['gpu_hours'])} GPU-hours"
    return line if estimate.get("cost") is None else f"{line}, cost {span_text(estimate['cost'])}"


def _gpus(run: Mapping[str, Any], model: str) -> int:
    for entry in run.get("models", ()):
        if entry["model"] == model and (placement := entry.get("placement")):
            return int(placement.get("tensor_parallel", 1)) * int(placement.get("pipeline_parallel", 1))
    return 1
