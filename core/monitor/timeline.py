"""Timelines, model by model: the spans of a run, and how much of the time that devices were held the engine worked. Pure."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

PHASES = ("prepare", "wait", "load", "generate", "score", "store", "close")
PLAN = "plan"  # no event: when the model was expected to have its devices, as if nothing were stored yet
IDLE = "idle"  # derived: the engine is loaded, and no request of this campaign runs on it
# Never two at once of one model, but for `generate` of its benchmarks.
ON_DEVICE = ("wait", "load", "generate", IDLE, "close")

Interval = tuple[float, float]


@dataclass(frozen=True)
class Span:
    """One phase of one model, ``started`` to ``ended`` in unix seconds by the clock of the machine that ran it.

    ``part`` is what the model did of the campaign: "benchmarks", "judge" or "canary". ``benchmark`` is empty where the phase is
    not of one benchmark. "prepare" without a benchmark is fetching the weights; "load" begins when the devices are held, "close"
    ends when they are free again.
    """

    model: str
    part: str
    engine: str
    phase: str
    benchmark: str
    started: float
    ended: float


@dataclass(frozen=True)
class Lane:
    """One model on one engine: its spans and the derived idle ones, in order of time; when it was ``planned``, if that is known.

    ``held_seconds`` is the time its devices were held, ``working_seconds`` the part of it in which requests ran.
    """

    label: str
    spans: tuple[Span, ...]
    held_seconds: float
    working_seconds: float
    planned: Interval | None = None

    @property
    def working_share(self) -> float | None:
        """Share of the held time in which the engine worked, 0 to 1; None where no device was held."""
        return self.working_seconds / self.held_seconds if self.held_seconds else None

    def seconds(self, phase: str) -> float:
        """Time in ``phase``; what ran side by side counts once."""
        return _length(_of(self.spans, phase))


def lanes(spans: Iterable[Span]) -> list[Lane]:
    """Return a lane per model, part and engine that did something, in the order they began."""
    grouped: dict[tuple[str, str, str], list[Span]] = defaultdict(list)
    planned: dict[tuple[str, str, str], Interval] = {}
    for span in sorted(spans, key=lambda each: (each.started, each.ended)):
        key = (span.model, span.part, span.engine)
        if span.phase == PLAN:
            planned[key] = (span.started, span.ended)
        else:
            grouped[key].append(span)
    return [replace(_lane(_label(*key), group), planned=planned.get(key)) for key, group in grouped.items()]


def timeline_rows(found: Sequence[Lane]) -> list[dict[str, Any]]:
    """Return one dict per span, to be drawn: its lane, what it is, and its seconds since the first span of all."""
    zero, _ = extent(found)
    return [
        {
            "lane": lane.label,
            "model": span.model,
            "part": span.part,
            "engine": span.engine,
            "phase": span.phase,
            "benchmark": span.benchmark,
            "start": span.started - zero,
            "end": span.ended - zero,
            "started": span.started,
            "ended": span.ended,
        }
        for lane in found
        for span in (*lane.spans, *plan_of(lane))
    ]


def extent(found: Sequence[Lane]) -> Interval:
    """When the first of all spans, planned ones too, starts and the last ends; (0, 0) where there is none."""
    times = [time for lane in found for span in (*lane.spans, *plan_of(lane)) for time in (span.started, span.ended)]
    return (min(times), max(times)) if times else (0.0, 0.0)


def plan_of(lane: Lane) -> list[Span]:
    """Return when a lane was planned as a span; none where that is not known."""
    if lane.planned is None:
        return []
    started, ended = lane.planned
    return [replace(lane.spans[0], phase=PLAN, benchmark="", started=started, ended=ended)]


def _label(model: str, part: str, engine: str) -> str:
    return model if part == "benchmarks" else f"{model} ({part}, {engine})"


def _lane(label: str, spans: list[Span]) -> Lane:
    held = _held(spans)
    working = _minus(held, _minus(held, _of(spans, "generate")))
    idle = _minus(held, _union([*working, *_of(spans, "load"), *_of(spans, "close")]))
    like = replace(spans[0], phase=IDLE, benchmark="")
    derived = [replace(like, started=started, ended=ended) for started, ended in idle]
    together = sorted([*spans, *derived], key=lambda each: (each.started, each.ended))
    return Lane(label, tuple(together), _length(held), _length(working))


def _held(spans: Sequence[Span]) -> list[Interval]:
    """Return the times from each first load to the close that follows it; where none is on record, to the last that is known."""
    held: list[Interval] = []
    began = None
    for span in spans:  # in order of their starts
        if span.phase == "load" and began is None:
            began = span.started
        elif span.phase == "close" and began is not None:
            held.append((began, span.ended))
            began = None
    if began is not None:
        held.append((began, max(span.ended for span in spans)))
    return held


def _of(spans: Iterable[Span], phase: str) -> list[Interval]:
    return _union((span.started, span.ended) for span in spans if span.phase == phase)


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for started, ended in sorted(intervals):
        if merged and started <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], ended))
        elif ended > started:
            merged.append((started, ended))
    return merged


def _minus(intervals: Sequence[Interval], taken: Sequence[Interval]) -> list[Interval]:
    """Return the parts of ``intervals`` that are not in ``taken``; both disjoint and in order."""
    left: list[Interval] = []
    for started, ended in intervals:
        at = started
        for begin, end in taken:
            if begin >= ended:
                break
            if end <= at:
                continue
            if begin > at:
                left.append((at, begin))
            at = max(at, end)
        if at < ended:
            left.append((at, ended))
    return left


def _length(intervals: Iterable[Interval]) -> float:
    return sum(ended - started for started, ended in intervals)


class Timeline:
    """The phases of one model (`core.monitor.timeline.PHASES`). Any thread may add to it."""

    def __init__(self, model: str = "", part: str = "benchmarks", engine: str = "") -> None:
        self._of = (model, part, engine)
        self._spans: list[Span] = []

    @contextmanager
    def span(self, phase: str, benchmark: str = "") -> Iterator[None]:
        """Record the time within the block, however it ends."""
        started = time.time()
        try:
            yield
        finally:
            self._spans.append(Span(*self._of, phase, benchmark, started, time.time()))

    def plan(self, starts: float, ends: float) -> None:
        """Record when the model was expected to have devices."""
        self._spans.append(Span(*self._of, PLAN, "", starts, ends))

    def spans(self) -> list[Span]:
        """Return what was recorded so far, in order of ending."""
        return list(self._spans)
