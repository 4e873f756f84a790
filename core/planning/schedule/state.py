"""What the scheduler knows at one moment, and how it goes on. Pure: a state is never changed, what happens gives a new one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from core.planning.schedule.jobs import Device, Job, Node, Option


@dataclass(frozen=True)
class Waiting:
    """A job in the queue. ``order`` is its place among equals."""

    job: Job
    since: float
    order: int


@dataclass(frozen=True)
class Running:
    """A job on its devices, with the time at which it is expected to end."""

    job: Job
    option: Option
    devices: tuple[Device, ...]
    ends: float


@dataclass(frozen=True)
class Start:
    """An order to start a job now, on these devices, in this way."""

    key: str
    option: Option
    devices: tuple[Device, ...]


@dataclass(frozen=True)
class Arrived:
    """Jobs came."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Ended:
    """A running job ended, early or late."""

    key: str


@dataclass(frozen=True)
class State:
    """The fleet, the queue and what runs; ``served`` counts what each campaign is given now, see `served_by`."""

    nodes: tuple[Node, ...]
    now: float = 0.0
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    running: Mapping[str, Running] = field(default_factory=dict)
    served: Mapping[str, float] = field(default_factory=dict)
    arrivals: int = 0


def served_by(running: Mapping[str, Running]) -> dict[str, float]:
    """GPU-seconds, each from start to expected end, that campaigns have in what runs."""
    served: dict[str, float] = defaultdict(float)
    for each in running.values():
        served[each.job.campaign] += len(each.devices) * each.option.seconds
    return dict(served)


def after(state: State, now: float, events: Iterable[Arrived | Ended]) -> State:
    """Apply what happened by ``now``.

    Raises `ValueError` where a job that arrived is in the state already, or time goes backwards; `KeyError` where one that ended
    was not running.
    """
    if now < state.now:
        raise ValueError(f"time went from {state.now} back to {now}")
    waiting, running, arrivals = dict(state.waiting), dict(state.running), state.arrivals
    for event in events:
        if isinstance(event, Ended):
            del running[event.key]
            continue
        for job in event.jobs:
            if job.key in waiting or job.key in running:
                raise ValueError(f"job {job.key!r} is there already")
            waiting[job.key] = Waiting(job, now, arrivals)
            arrivals += 1
    return State(state.nodes, now, waiting, running, served_by(running), arrivals)


def started(state: State, starts: Sequence[Start]) -> State:
    """Return the state once ``starts`` are under way."""
    waiting, running = dict(state.waiting), dict(state.running)
    for start in starts:
        job = waiting.pop(start.key).job
        running[start.key] = Running(job, start.option, start.devices, state.now + start.option.seconds)
    return replace(state, waiting=waiting, running=running, served=served_by(running))
