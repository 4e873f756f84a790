"""What a run took, in time, GPU-hours and money, beside what it was expected to take. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.monitor.timeline import Lane
from core.planning.cost.describe import span_text
from core.tables import duration


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
    """Return what a GPU-hour of a run's fleet cost; None where its spec does not say."""
    price: float | None = ((run.get("spec") or {}).get("fleet") or {}).get("price_per_gpu_hour")
    return price


def spent_line(run: Mapping[str, Any], lanes: Sequence[Lane]) -> str | None:
    """Say what a run took and was expected to take; None where `spent` knows nothing."""
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
