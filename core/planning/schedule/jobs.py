"""The scheduler's terms: jobs, each one model on its benchmarks, nodes with GPUs of one kind, and the state of both.

A state is never changed: what happens gives a new one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple


class Device(NamedTuple):
    """One GPU, or one MIG slice of a GPU, of a node."""

    node: str
    gpu: int


@dataclass(frozen=True)
class Node:
    """A machine of the fleet: ``gpus`` devices of one ``kind``, each with ``memory_gb`` GB (10⁹ bytes)."""

    name: str
    kind: str
    gpus: int
    memory_gb: float
    links: bool = True  # whether its devices can work as one gang; MIG slices cannot


@dataclass(frozen=True)
class Option:
    """One way to run a job: ``stages`` groups of ``tensor_parallel`` GPUs of one kind. A group stays within a node."""

    kind: str
    work_seconds: float  # prefill and decode of all benchmarks
    load_seconds: float = 0.0
    tensor_parallel: int = 1
    stages: int = 1  # pipeline parallel × replicas
    memory_gb: float = 0.0  # on each GPU

    @property
    def gpus(self) -> int:
        """GPUs held from start to end, all or none."""
        return self.tensor_parallel * self.stages

    @property
    def seconds(self) -> float:
        """Load and work together: as long as its GPUs are held."""
        return self.load_seconds + self.work_seconds


@dataclass(frozen=True)
class ScheduledJob:
    """A model and its benchmarks, which run together on one engine."""

    key: str
    options: tuple[Option, ...]
    campaign: str = ""
    priority: int = 0  # higher goes first
    leads: bool = False  # goes before the others of its campaign

    @cached_property
    def quickest(self) -> Option:
        """The option of the fewest seconds."""
        return min(self.options, key=lambda option: option.seconds)

    @cached_property
    def gpu_seconds(self) -> float:
        """GPU-seconds of the option that needs the fewest."""
        return min(option.gpus * option.seconds for option in self.options)


def fits(option: Option, node: Node) -> bool:
    """Return whether a node can hold at least one of the option's groups."""
    return (
        option.kind == node.kind
        and option.memory_gb <= node.memory_gb
        and option.tensor_parallel <= node.gpus
        and (node.links or option.gpus == 1)
    )


def runnable(job: ScheduledJob, nodes: Sequence[Node]) -> bool:
    """Return whether the whole fleet, empty, could run the job in one of its ways."""
    return any(
        sum(node.gpus // option.tensor_parallel for node in nodes if fits(option, node)) >= option.stages
        for option in job.options
    )


@dataclass(frozen=True)
class WaitingJob:
    """A job in the queue."""

    job: ScheduledJob
    since: float


@dataclass(frozen=True)
class RunningJob:
    """A job on its devices, with the time at which it is expected to end."""

    job: ScheduledJob
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
class State:
    """The fleet, the queue in order of arrival, and what runs; ``served`` is `served_by` of each campaign."""

    nodes: tuple[Node, ...]
    now: float = 0.0
    waiting: Mapping[str, WaitingJob] = field(default_factory=dict)
    running: Mapping[str, RunningJob] = field(default_factory=dict)
    served: Mapping[str, float] = field(default_factory=dict)


def served_by(running: Mapping[str, RunningJob]) -> dict[str, float]:
    """Return the GPU-seconds, each from start to expected end, that campaigns have in what runs."""
    served: dict[str, float] = defaultdict(float)
    for each in running.values():
        served[each.job.campaign] += len(each.devices) * each.option.seconds
    return dict(served)


def at_start(nodes: Iterable[Node], jobs: Iterable[ScheduledJob]) -> State:
    """Return the state at 0 seconds: all jobs wait, and nothing runs."""
    return after(State(tuple(nodes)), 0.0, jobs)


def after(state: State, now: float, arrived: Iterable[ScheduledJob] = (), ended: Iterable[str] = ()) -> State:
    """Return the state at ``now``, with the jobs that ``arrived`` and without those that ``ended``, by their keys.

    Raises `ValueError` where a job that arrived is in the state already, or time goes backwards; `KeyError` where one that ended
    was not running.
    """
    if now < state.now:
        raise ValueError(f"time went from {state.now} back to {now}")
    waiting, running = dict(state.waiting), dict(state.running)
    for key in ended:
        del running[key]
    for job in arrived:
        if job.key in waiting or job.key in running:
            raise ValueError(f"job {job.key!r} is there already")
        waiting[job.key] = WaitingJob(job, now)
    return State(state.nodes, now, waiting, running, served_by(running))


def started(state: State, starts: Sequence[Start]) -> State:
    """Return the state once ``starts`` are under way."""
    waiting, running = dict(state.waiting), dict(state.running)
    for start in starts:
        job = waiting.pop(start.key).job
        running[start.key] = RunningJob(job, start.option, start.devices, state.now + start.option.seconds)
    return replace(state, waiting=waiting, running=running, served=served_by(running))
