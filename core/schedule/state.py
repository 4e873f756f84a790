"""What the scheduler knows at one moment, and how events change it. Pure: a state is never changed, each event gives a new one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from core.schedule.jobs import Device, Job, Node, Option

LEAST_SHARE = 0.01  # of the work is left of any job that was stopped: what it still writes and scores


@dataclass(frozen=True)
class Waiting:
    """A job in the queue. ``share`` of its work is left; ``order`` is its place among equals."""

    job: Job
    since: float
    order: int
    share: float = 1.0

    @cached_property
    def options(self) -> tuple[tuple[Option, float], ...]:
        """Ways to run what is left, each with its seconds."""
        return tuple((option, option.seconds(self.share)) for option in self.job.options)

    @cached_property
    def quickest(self) -> tuple[Option, float]:
        """The option of the fewest seconds, and them."""
        return min(self.options, key=lambda each: each[1])

    @cached_property
    def gpu_seconds(self) -> float:
        """GPU-seconds of the option that needs the fewest."""
        return min(option.gpus * seconds for option, seconds in self.options)


@dataclass(frozen=True)
class Running:
    """A job on its devices. Of ``left`` seconds (alone on the GPUs) at ``told``, ``rate`` pass in each second."""

    waited: Waiting
    option: Option
    devices: tuple[Device, ...]
    started: float
    told: float
    left: float
    rate: float = 1.0

    @property
    def job(self) -> Job:
        """The job itself."""
        return self.waited.job

    @property
    def ends(self) -> float:
        """When it is expected to end."""
        return self.told + self.left / self.rate

    def at(self, now: float, rate: float | None = None) -> Running:
        """The same at ``now``, going on at ``rate``."""
        left = max(0.0, self.left - (now - self.told) * self.rate)
        return replace(self, told=now, left=left, rate=self.rate if rate is None else rate)

    def share_left(self) -> float:
        """Share of the job's whole work that would be left if it were stopped where `at` says it is."""
        if self.option.work_seconds <= 0:
            return self.waited.share
        return min(self.waited.share, max(LEAST_SHARE, self.left / self.option.work_seconds))


@dataclass(frozen=True)
class Start:
    """An order to start a job now, on these devices, in this way. ``beside`` names the job whose GPU it shares, if any."""

    key: str
    option: Option
    devices: tuple[Device, ...]
    beside: str | None = None


@dataclass(frozen=True)
class Arrived:
    """Jobs came."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Ended:
    """A job ended, early or late, done or given up: it will not come back."""

    key: str


@dataclass(frozen=True)
class Preempted:
    """A job was stopped and goes back to its place in the queue; ``done`` is the share of its work that is stored, if known."""

    key: str
    done: float | None = None


@dataclass(frozen=True)
class Expected:
    """A running job is now expected to end after ``seconds`` from now, alone on its GPUs."""

    key: str
    seconds: float


@dataclass(frozen=True)
class Left:
    """Devices are gone; gangs on them are released whole and go back to the queue."""

    devices: tuple[Device, ...]


@dataclass(frozen=True)
class Back:
    """Devices are there again."""

    devices: tuple[Device, ...]


Event = Arrived | Ended | Preempted | Expected | Left | Back


@dataclass(frozen=True)
class State:
    """The queue, what runs, the fleet and which devices are gone; ``served`` counts weighted GPU-seconds by campaign."""

    nodes: tuple[Node, ...]
    now: float = 0.0
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    running: Mapping[str, Running] = field(default_factory=dict)
    down: frozenset[Device] = frozenset()
    served: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)  # of campaigns; 1 where not named
    arrivals: int = 0

    def weight(self, campaign: str) -> float:
        """A campaign's part of the fleet in relation to others'."""
        return self.weights.get(campaign, 1.0)


def after(state: State, now: float, events: Iterable[Event]) -> State:
    """Apply events that happened by ``now``, in their order. Events about jobs that are not there any more change nothing.

    Raises `ValueError` where a job's key is in the state already, or time goes backwards.
    """
    if now < state.now:
        raise ValueError(f"time went from {state.now} back to {now}")
    state = replace(state, now=now)
    for event in events:
        state = _applied(state, event)
    return state


def _applied(state: State, event: Event) -> State:
    match event:
        case Arrived(jobs):
            return _arrived(state, jobs)
        case Ended(key):
            return _released(state, key)[0]
        case Preempted(key, done):
            return _requeued(state, key, done)
        case Expected(key, seconds):
            if key not in state.running:
                return state
            moved = replace(state.running[key].at(state.now), left=seconds)
            return replace(state, running={**state.running, key: moved})
        case Left(devices):
            gone = frozenset(devices)
            for key in [key for key, each in state.running.items() if not gone.isdisjoint(each.devices)]:
                state = _requeued(state, key, None)
            return replace(state, down=state.down | gone)
        case Back(devices):
            return replace(state, down=state.down - frozenset(devices))


def _arrived(state: State, jobs: Sequence[Job]) -> State:
    waiting, served = dict(state.waiting), dict(state.served)
    active = {each.job.campaign for each in state.waiting.values()}
    active |= {each.job.campaign for each in state.running.values()}
    # A campaign that comes late starts level with the least served: it makes up for nothing it did not ask for.
    level = min((served.get(name, 0.0) for name in active), default=0.0)
    for number, job in enumerate(jobs):
        if job.key in waiting or job.key in state.running:
            raise ValueError(f"job {job.key!r} is there already")
        waiting[job.key] = Waiting(job, state.now, state.arrivals + number)
        if job.campaign not in active:
            served[job.campaign] = max(level, served.get(job.campaign, 0.0))
            active.add(job.campaign)
    return replace(state, waiting=waiting, served=served, arrivals=state.arrivals + len(jobs))


def started(state: State, starts: Sequence[Start]) -> State:
    """Return the state once ``starts`` are under way."""
    waiting, running, served = dict(state.waiting), dict(state.running), dict(state.served)
    for start in starts:
        waited = waiting.pop(start.key)
        seconds = start.option.seconds(waited.share)
        one = Running(waited, start.option, start.devices, state.now, state.now, seconds)
        if start.beside is not None:
            other = running[start.beside]
            rate = shared_rate(one.option, other.option)
            one = replace(one, rate=rate)
            running[start.beside] = other.at(state.now, rate)
        running[start.key] = one
        campaign = waited.job.campaign
        served[campaign] = served.get(campaign, 0.0) + seconds * start.option.gpus / state.weight(campaign)
    return replace(state, waiting=waiting, running=running, served=served)


def shared_rate(one: Option, other: Option) -> float:
    """How fast each of two jobs goes on one GPU, which gives time to them in turn."""
    return min(1.0, 1.0 / (one.busy + other.busy))


def _released(state: State, key: str) -> tuple[State, Running | None]:
    if key not in state.running:
        return state, None
    running = dict(state.running)
    one = running.pop(key).at(state.now)
    if one.rate < 1.0:
        for other_key, other in running.items():
            if other.devices == one.devices:
                running[other_key] = other.at(state.now, 1.0)
    # What it took less, or more, than it was charged for at its start.
    charged = one.option.seconds(one.waited.share)
    used = state.now - one.started
    campaign = one.job.campaign
    correction = (used - charged) * one.option.gpus / state.weight(campaign)
    served = {**state.served, campaign: state.served.get(campaign, 0.0) + correction}
    return replace(state, running=running, served=served), one


def _requeued(state: State, key: str, done: float | None) -> State:
    state, one = _released(state, key)
    if one is None:
        return state
    share = one.share_left() if done is None else min(one.waited.share, max(LEAST_SHARE, 1.0 - done))
    return replace(state, waiting={**state.waiting, key: replace(one.waited, share=share)})
