"""A campaign on a virtual clock, scheduled by the code that schedules real ones. Pure."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from core.planning.schedule.jobs import Device, Job, Node, Option
from core.planning.schedule.state import Arrived, Ended, Start, State, after, started

Decide = Callable[[State], Sequence[Start]]


@dataclass(frozen=True)
class Span:
    """A job on its devices: when it ``arrived`` in the queue, its ``start`` and its ``end``, in seconds."""

    key: str
    option: Option
    devices: tuple[Device, ...]
    arrived: float
    start: float
    end: float


@dataclass(frozen=True)
class Simulated:
    """What happened on a fleet of ``gpus``: one span for each job, in order of their starts."""

    spans: tuple[Span, ...]
    gpus: int

    @property
    def makespan(self) -> float:
        """Seconds until the last end."""
        return max((span.end for span in self.spans), default=0.0)

    @property
    def utilisation(self) -> float:
        """Share of the fleet's GPU-seconds, until the last end, in which a GPU was held."""
        total = self.gpus * self.makespan
        return sum(span.option.gpus * (span.end - span.start) for span in self.spans) / total if total else 1.0

    @property
    def waits(self) -> dict[str, float]:
        """Seconds that each job waited for its start."""
        return {span.key: span.start - span.arrived for span in self.spans}


def simulate(
    nodes: Sequence[Node],
    jobs: Sequence[Job],
    decide: Decide,
    *,
    later: Iterable[tuple[float, Job]] = (),
    factors: Mapping[str, float] | None = None,
) -> Simulated:
    """Run ``jobs``, which are there at 0, and those that come ``later``; each takes its estimate times its factor."""
    state, factors, number = State(tuple(nodes)), factors or {}, itertools.count()
    events: list[tuple[float, int, Arrived | Ended]] = [(0.0, next(number), Arrived(tuple(jobs)))]
    events += [(time, next(number), Arrived((job,))) for time, job in later]
    heapq.heapify(events)
    spans: list[Span] = []
    while events:
        now = events[0][0]
        happened = []
        while events and events[0][0] == now:
            happened.append(heapq.heappop(events)[2])
        state = after(state, now, happened)
        starts = decide(state)
        for start in starts:
            end = now + start.option.seconds * factors.get(start.key, 1.0)
            spans.append(Span(start.key, start.option, start.devices, state.waiting[start.key].since, now, end))
            heapq.heappush(events, (end, next(number), Ended(start.key)))
        state = started(state, starts)
    spans.sort(key=lambda span: (span.start, span.key))
    return Simulated(tuple(spans), sum(node.gpus for node in nodes))


def really(job: Job, factor: float) -> Job:
    """The job with the times it will really take: its estimates times ``factor``."""
    options = tuple(
        replace(each, work_seconds=each.work_seconds * factor, load_seconds=each.load_seconds * factor)
        for each in job.options
    )
    return replace(job, options=options)
