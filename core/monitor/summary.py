"""Summaries of monitoring: one cell's figures, and how many engines were alive at once. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from core.monitor.readings import Reading

if TYPE_CHECKING:
    import pyarrow as pa

Points = list[tuple[float, float]]  # (unix seconds, value), in order of time


def summarise(readings: Iterable[Reading], start: float, end: float) -> dict[str, float]:
    """Return figures of what was read from ``start`` to ``end`` (unix seconds), as JSON values; nothing read, no key.

    GPUs: ``gpu_utilisation_mean`` and ``gpu_utilisation_max`` (percent), ``gpu_memory_peak_bytes`` (of the fullest GPU) and
    ``energy_joules`` (of all). Host: ``host_cpu_mean`` (percent of all cores). Engine, all replicas together:
    ``engine_rss_peak_bytes`` (each one's peak), ``kv_cache_usage_peak`` (0 to 1, of the fullest), ``prefix_cache_hit_rate``
    (0 to 1, of the prompt tokens looked up), ``running_mean``, ``waiting_mean`` (requests), ``prompt_tokens_per_second``
    (those read from the cache too) and ``generation_tokens_per_second``.

    Means are weighted by time. A counter is read off at both ends between its neighbouring readings, so ``readings`` may
    and should reach beyond the interval. All are of the GPUs and the engine as a whole, whatever else ran meanwhile.
    """
    series: dict[tuple[str, str], dict[str, Points]] = defaultdict(lambda: defaultdict(list))
    for reading in sorted(readings, key=lambda each: each.time):
        series[reading.source, reading.metric][reading.device].append((reading.time, reading.value))

    def inside(source: str, metric: str) -> list[Points]:
        cut = [[point for point in points if start <= point[0] <= end] for points in series[source, metric].values()]
        return [points for points in cut if points]

    def risen(metric: str) -> list[float]:
        return [rise for points in series["engine", metric].values() if (rise := _rise(points, start, end)) is not None]

    def rate(metric: str) -> list[float]:
        spans = [_span(points, start, end) for points in series["engine", metric].values()]
        seconds = max((last - first for first, last in spans), default=0.0)
        return [rise / seconds for rise in risen(metric)] if seconds > 0 else []

    found: dict[str, float] = {}

    def put(key: str, values: Sequence[float], together: Callable[[Sequence[float]], float]) -> None:
        if values:
            found[key] = float(together(values))

    put("gpu_utilisation_mean", [_mean(points) for points in inside("gpu", "utilisation_percent")], _average)
    put("gpu_utilisation_max", [_peak(points) for points in inside("gpu", "utilisation_percent")], max)
    put("gpu_memory_peak_bytes", [_peak(points) for points in inside("gpu", "memory_used_bytes")], max)
    counted, drawn = series["gpu", "energy_joules"], series["gpu", "power_watts"]
    energies = [_energy(counted[gpu], drawn[gpu], start, end) for gpu in sorted({*counted, *drawn})]
    put("energy_joules", [energy for energy in energies if energy is not None], sum)
    put("host_cpu_mean", [_mean(points) for points in inside("host", "utilisation_percent")], _average)
    put("engine_rss_peak_bytes", [_peak(points) for points in inside("engine", "rss_bytes")], sum)
    put("kv_cache_usage_peak", [_peak(points) for points in inside("engine", "kv_cache_usage")], max)
    put("running_mean", [_mean(points) for points in inside("engine", "running")], sum)
    put("waiting_mean", [_mean(points) for points in inside("engine", "waiting")], sum)
    put("prompt_tokens_per_second", rate("prompt_tokens"), sum)
    put("generation_tokens_per_second", rate("generation_tokens"), sum)
    if queries := sum(risen("prefix_cache_queries")):
        found["prefix_cache_hit_rate"] = sum(risen("prefix_cache_hits")) / queries
    return found


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _peak(points: Points) -> float:
    return max(value for _, value in points)


def _mean(points: Points) -> float:
    seconds = points[-1][0] - points[0][0]
    return _area(points) / seconds if seconds > 0 else _average([value for _, value in points])


def _area(points: Points) -> float:
    """The integral over time, by trapezoids."""
    return sum((later - sooner) * (a + b) / 2 for (sooner, a), (later, b) in pairwise(points))


def _span(points: Points, start: float, end: float) -> tuple[float, float]:
    """The part of the interval that the points cover; where they do not, its end comes first."""
    return max(start, points[0][0]), min(end, points[-1][0])


def _at(points: Points, time: float) -> float:
    """The value at a time that the points cover, on the line between its neighbours."""
    index = max(1, bisect_left(points, time, key=lambda point: point[0]))
    if index == len(points):
        return points[-1][1]
    (sooner, a), (later, b) = points[index - 1], points[index]
    return a + (b - a) * (time - sooner) / (later - sooner) if later > sooner else b


def _rise(points: Points, start: float, end: float) -> float | None:
    """By how much a counter rose within the interval; None where it was not read over any part of it."""
    first, last = _span(points, start, end)
    return _at(points, last) - _at(points, first) if last > first else None


def _energy(counted: Points, drawn: Points, start: float, end: float) -> float | None:
    """Joules of one card: by its counter, or from its power in watts where it has none."""
    if counted:
        return _rise(counted, start, end)
    if not drawn:
        return None
    first, last = _span(drawn, start, end)
    if last <= first:
        return None
    within = [point for point in drawn if first < point[0] < last]
    return _area([(first, _at(drawn, first)), *within, (last, _at(drawn, last))])


@dataclass(frozen=True)
class EnginesAlive:
    """``steps`` are (unix seconds, engines alive from then on); ``most`` is the largest number at any time."""

    steps: tuple[tuple[float, int], ...]
    most: int


def engines_alive(table: pa.Table) -> EnginesAlive:
    """Count the engines, each a process of a host, that were alive over time by rows of `core.store.monitor.MONITOR`.

    One lives from ``started`` to ``ended``, which the engine's process tells itself, however seldom it was read; where its end
    was not seen, to its last reading. Two that touch count as two.
    """
    columns = ("host", "device", "metric", "value", "time", "source")
    rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
    lives: dict[tuple[str, str], dict[str, float]] = {}
    for host, device, metric, value, time, source in rows:
        if source != "engine":
            continue
        read = time.timestamp()
        life = lives.setdefault((host, device), {"first": read, "last": read})
        life["first"], life["last"] = min(life["first"], read), max(life["last"], read)
        if metric in ("started", "ended"):
            life[metric] = value
    births = [(life.get("started", life["first"]), 0, 1) for life in lives.values()]
    deaths = [(life.get("ended", life["last"]), 1, -1) for life in lives.values()]
    alive, steps = 0, []
    for moment, _, change in sorted(births + deaths):
        alive += change
        steps.append((moment, alive))
    return EnginesAlive(tuple(steps), max((count for _, count in steps), default=0))
