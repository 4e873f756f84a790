"""A campaign on a virtual clock, scheduled by the code that schedules real ones, and by rivals that no flow uses. Pure."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from core.planning.schedule.jobs import (
    Device,
    Node,
    Option,
    ScheduledJob,
    Start,
    State,
    WaitingJob,
    after,
    at_start,
    runnable,
    started,
)
from core.planning.schedule.scheduler import SchedulingPolicy, choose, decide, idle_devices, profile_of, start_of

Decide = Callable[[State], Sequence[Start]]
OURS = "longest first, backfill"


@dataclass(frozen=True)
class JobSpan:
    """A job on its devices: when it ``arrived`` in the queue, its ``start`` and its ``end``, in seconds."""

    key: str
    option: Option
    devices: tuple[Device, ...]
    arrived: float
    start: float
    end: float


@dataclass(frozen=True)
class Simulated:
    """The past of a fleet of ``gpus``: one span for each job, in order of their starts."""

    spans: tuple[JobSpan, ...]
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
    jobs: Sequence[ScheduledJob],
    decide: Decide,
    *,
    later: Iterable[tuple[float, ScheduledJob]] = (),
    factors: Mapping[str, float] | None = None,
) -> Simulated:
    """Run ``jobs``, which are there at 0, and those that come ``later``; each takes its estimate times its factor."""
    state, factors, number = State(tuple(nodes)), factors or {}, itertools.count()
    events: list[tuple[float, int, ScheduledJob | str]] = [
        (0.0, next(number), job) for job in jobs
    ]  # comes, or has ended
    events += [(time, next(number), job) for time, job in later]
    heapq.heapify(events)
    spans: list[JobSpan] = []
    while events:
        now = events[0][0]
        arrived: list[ScheduledJob] = []
        ended: list[str] = []
        while events and events[0][0] == now:
            event = heapq.heappop(events)[2]
            if isinstance(event, str):
                ended.append(event)
            else:
                arrived.append(event)
        state = after(state, now, arrived, ended)
        starts = decide(state)
        for start in starts:
            end = now + start.option.seconds * factors.get(start.key, 1.0)
            spans.append(JobSpan(start.key, start.option, start.devices, state.waiting[start.key].since, now, end))
            heapq.heappush(events, (end, next(number), start.key))
        state = started(state, starts)
    spans.sort(key=lambda span: (span.start, span.key))
    return Simulated(tuple(spans), sum(node.gpus for node in nodes))


def really(job: ScheduledJob, factor: float) -> ScheduledJob:
    """Return the job with the times it will really take: its estimates times ``factor``."""
    options = tuple(
        replace(each, work_seconds=each.work_seconds * factor, load_seconds=each.load_seconds * factor)
        for each in job.options
    )
    return replace(job, options=options)


def policies(nodes: Sequence[Node], jobs: Sequence[ScheduledJob], policy: SchedulingPolicy) -> dict[str, Decide]:
    """Return our policy, then its rivals, by their names in tables."""
    state = at_start(nodes, jobs)
    return {
        OURS: partial(decide, policy=choose(state, policy)),
        "one queue, largest first": largest_first,
        "first in, first out": first_in_first_out,
        "small and large apart": apart(nodes, jobs, policy),
    }


def first_in_first_out(state: State) -> tuple[Start, ...]:
    """Start jobs as they came; the first that has to wait holds up all behind it."""
    return _in_line(state, state.waiting.values())


def largest_first(state: State) -> tuple[Start, ...]:
    """One queue, most GPUs first and then the longest; nothing overtakes the first that has to wait."""
    waiting = state.waiting.values()
    return _in_line(state, sorted(waiting, key=lambda each: (-each.job.quickest.gpus, -each.job.quickest.seconds)))


def _in_line(state: State, queue: Iterable[WaitingJob]) -> tuple[Start, ...]:
    profile, idle, starts = profile_of(state), idle_devices(state), []
    for waiting in queue:
        if (slot := profile.at_once(waiting.job.options)) is None:
            break
        profile.take(slot)
        starts.append(start_of(waiting, slot, idle))
    return tuple(starts)


def apart(nodes: Sequence[Node], jobs: Sequence[ScheduledJob], policy: SchedulingPolicy) -> Decide:
    """Two pipelines: some nodes for gangs, the others for single-GPU models, each with our own scheduler.

    The nodes are split by work, so that both would end together, some kinds first for gangs or last, whatever is best. Where no
    split is as good, or there is one node only, the pipelines run one after the other on all nodes, as two campaigns would.
    """
    gangs = [job for job in jobs if _is_gang(job)]
    small = [job for job in jobs if not _is_gang(job)]
    parts = _split(nodes, gangs, small) if gangs and small else None
    return partial(_apart, policy=policy, parts=parts)


def _apart(
    state: State, policy: SchedulingPolicy, parts: tuple[tuple[Node, ...], tuple[Node, ...]] | None
) -> tuple[Start, ...]:
    if parts is None:
        gangs = {key: each for key, each in state.waiting.items() if _is_gang(each.job)}
        busy = any(_is_gang(each.job) for each in state.running.values())
        return decide(replace(state, waiting=gangs), policy) if gangs or busy else decide(state, policy)
    starts: list[Start] = []
    for nodes, wide in zip(parts, (True, False), strict=True):
        names = {node.name for node in nodes}
        part = replace(
            state,
            nodes=nodes,
            waiting={key: each for key, each in state.waiting.items() if _is_gang(each.job) == wide},
            running={key: each for key, each in state.running.items() if each.devices[0].node in names},
        )
        starts += decide(part, policy)
    return tuple(starts)


def _is_gang(job: ScheduledJob) -> bool:
    return job.quickest.gpus > 1


def _split(
    nodes: Sequence[Node], gangs: Sequence[ScheduledJob], small: Sequence[ScheduledJob]
) -> tuple[tuple[Node, ...], tuple[Node, ...]] | None:
    """Return the split whose slower pipeline has the least to do; None where one pipeline after the other has no more."""
    best: tuple[tuple[Node, ...], tuple[Node, ...]] | None = None
    least = _evenly(nodes, gangs) + _evenly(nodes, small)
    by_memory = sorted(nodes, key=lambda node: node.memory_gb)
    for order in (list(nodes), list(reversed(nodes)), by_memory, by_memory[::-1]):
        for count in range(1, len(order)):
            large, rest = tuple(order[:count]), tuple(order[count:])
            if not all(runnable(job, large) for job in gangs) or not all(runnable(job, rest) for job in small):
                continue
            seconds = max(_evenly(large, gangs), _evenly(rest, small))
            if seconds < least or (best is None and seconds == least):
                least, best = seconds, (large, rest)
    return best


def _evenly(nodes: Sequence[Node], jobs: Sequence[ScheduledJob]) -> float:
    """Return the seconds until the jobs would be done, were their work spread evenly, and no less than the longest takes."""
    kinds = {node.kind for node in nodes}
    usable = [[option for option in job.options if option.kind in kinds] for job in jobs]
    work = sum(min(option.gpus * option.seconds for option in options) for options in usable)
    longest = max(min(option.seconds for option in options) for options in usable)
    return max(longest, work / sum(node.gpus for node in nodes))
