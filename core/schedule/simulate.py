"""A campaign on a virtual clock, scheduled by the code that schedules real ones. Pure."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.schedule.jobs import Device, Job, Node, Option
from core.schedule.state import Arrived, Ended, Event, Left, Preempted, Running, Start, State, after, started

Decide = Callable[[State], Sequence[Start]]


@dataclass(frozen=True)
class Span:
    """A job on its devices from ``start`` to ``end``, in seconds; ``preempted`` where it had to go on elsewhere."""

    key: str
    campaign: str
    option: Option
    devices: tuple[Device, ...]
    start: float
    end: float
    preempted: bool = False


@dataclass(frozen=True)
class Simulated:
    """What happened. Seconds; ``waits`` are those of each job from its arrival to its first start."""

    spans: tuple[Span, ...]
    gpus: int
    arrived: Mapping[str, float]
    left: tuple[str, ...] = ()  # jobs that never got the GPUs they need

    @property
    def makespan(self) -> float:
        """From the first arrival to the last end."""
        return max((span.end for span in self.spans), default=0.0) - min(self.arrived.values(), default=0.0)

    @property
    def utilisation(self) -> float:
        """Share of the fleet's GPU-seconds, until the last end, in which a GPU was held."""
        held = 0.0
        by_device: dict[Device, list[Span]] = {}
        for span in self.spans:
            for device in span.devices:
                by_device.setdefault(device, []).append(span)
        for spans in by_device.values():
            until = 0.0
            for span in spans:  # in order of their starts; two on one GPU count once
                held += max(0.0, span.end - max(span.start, until))
                until = max(until, span.end)
        total = self.gpus * self.makespan
        return held / total if total else 1.0

    @property
    def waits(self) -> dict[str, float]:
        """Seconds that each job waited for its first start."""
        first: dict[str, float] = {}
        for span in self.spans:
            first.setdefault(span.key, span.start - self.arrived[span.key])
        return first


@dataclass
class _Work:
    """What is really left of a running job, which its scheduler only estimates."""

    left: float  # seconds alone on its GPUs
    told: float
    rate: float
    start: Start
    since: float

    def at(self, now: float, rate: float) -> None:
        self.left -= (now - self.told) * self.rate
        self.told, self.rate = now, rate


def simulate(
    nodes: Sequence[Node],
    jobs: Iterable[Job],
    decide: Decide,
    *,
    happens: Iterable[tuple[float, Event]] = (),
    factors: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
) -> Simulated:
    """Run ``jobs``, which are there at 0, and what ``happens`` later; a job takes its estimate times its factor in ``factors``.

    ``happens`` may bring `Arrived`, `Left`, `Back`, `Preempted` and `Ended` (given up). What a job had done when it was stopped is
    kept, as its shards are.
    """
    run = _Run(State(tuple(nodes), weights=dict(weights or {})), decide, dict(factors or {}))
    run.expect(0.0, Arrived(tuple(jobs)))
    for time, event in happens:
        run.expect(time, event)
    run.play()
    gpus = sum(node.gpus for node in nodes)
    return Simulated(tuple(sorted(run.spans, key=lambda span: (span.start, span.key))), gpus, run.arrived, run.left)


class _Run:
    def __init__(self, state: State, decide: Decide, factors: dict[str, float]) -> None:
        self.spans: list[Span] = []
        self.arrived: dict[str, float] = {}
        self._state, self._decide, self._factors = state, decide, factors
        self._work: dict[str, _Work] = {}
        self._events: list[tuple[float, int, Event, _Work | None]] = []
        self._number = itertools.count()

    @property
    def left(self) -> tuple[str, ...]:
        return tuple(self._state.waiting)

    def expect(self, time: float, event: Event, work: _Work | None = None) -> None:
        heapq.heappush(self._events, (time, next(self._number), event, work))

    def play(self) -> None:
        while self._events:
            now = self._events[0][0]
            happened: list[Event] = []
            while self._events and self._events[0][0] <= now:
                _, _, event, work = heapq.heappop(self._events)
                happened += self._heard(event, work, now)
            if not happened:
                continue
            self._state = after(self._state, now, happened)
            starts = tuple(self._decide(self._state))
            self._state = started(self._state, starts)
            for start in starts:
                seconds = self._state.running[start.key].left * self._factors.get(start.key, 1.0)
                self._work[start.key] = _Work(seconds, now, 0.0, start, now)
            for key, running in self._state.running.items():
                self._keep_pace(key, running, now)

    def _keep_pace(self, key: str, running: Running, now: float) -> None:
        work = self._work[key]
        if work.rate != running.rate:
            work.at(now, running.rate)
            self.expect(now + work.left / work.rate, Ended(key), work)

    def _heard(self, event: Event, work: _Work | None, now: float) -> list[Event]:
        """Close the spans of jobs that end or are stopped; drop an end that was foretold before a job changed its pace."""
        match event:
            case Arrived(jobs):
                self.arrived.update((job.key, now) for job in jobs)
                return [event]
            case Ended(key):
                known = self._work.get(key)
                # A foretold end counts where the job is the same start and has nothing left at this pace.
                if known is None or (work is not None and (known is not work or not _over(work, now))):
                    return []
                self._close(key, now, preempted=False)
                return [event]
            case Preempted(key, done):
                return [self._stop(key, now, done)] if key in self._work else []
            case Left(devices):
                gone = set(devices)
                hit = [key for key, each in self._work.items() if not gone.isdisjoint(each.start.devices)]
                return [*(self._stop(key, now, None) for key in hit), event]
            case _:
                return [event]

    def _stop(self, key: str, now: float, done: float | None) -> Event:
        work = self._work[key]
        work.at(now, work.rate)
        factor = self._factors.get(key, 1.0)
        whole = work.start.option.work_seconds * factor
        if done is None and whole > 0:
            done = 1.0 - min(1.0, work.left / whole)
        self._close(key, now, preempted=True)
        return Preempted(key, done)

    def _close(self, key: str, now: float, *, preempted: bool) -> None:
        work = self._work.pop(key)
        job = self._state.running[key].job
        self.spans.append(
            Span(key, job.campaign, work.start.option, work.start.devices, work.since, now, preempted=preempted)
        )


def _over(work: _Work, now: float) -> bool:
    return work.left - (now - work.told) * work.rate <= 1e-6 * max(1.0, now)
