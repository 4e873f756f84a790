"""Turns for the devices of one pool: the models that wait for them and that hold them, as the scheduler sees it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.planning.schedule.jobs import Device, Node, Option, RunningJob, ScheduledJob, State, WaitingJob, served_by
from core.planning.schedule.scheduler import SchedulingPolicy, decide

UNKNOWN_SECONDS = 600.0  # of a model that nothing is known of
SETTLE_SECONDS = 60.0  # devices are kept so long for a model whose turn it is and whose benchmarks are being prepared
POOL, KIND = "pool", "device"  # the devices of a pool are alike, and any of them can work together


@dataclass(frozen=True)
class Demand:
    """The demand of a model on a pool: ``gpus`` devices for some ``seconds``, load and work. JSON values."""

    label: str
    gpus: int
    seconds: float = UNKNOWN_SECONDS
    campaign: str = ""
    priority: int = 0
    leads: bool = False  # others of its campaign are compared with it, and may end early for that


@dataclass(frozen=True)
class Wish:
    """A demand that waits ``since`` a unix time; one not ``ready`` could not start yet if it got its devices."""

    demand: Demand
    since: float
    ready: bool = True


@dataclass(frozen=True)
class HeldDevices:
    """A demand with its devices, by their indices in the pool, since it ``started``. A replica's ``gives_way`` to wishes."""

    demand: Demand
    devices: tuple[int, ...]
    started: float
    gives_way: bool = False


@dataclass(frozen=True)
class Queue:
    """The knowledge of a pool of ``size`` devices at a moment. Keys are names of tickets, in the order they were drawn."""

    size: int
    wishes: Mapping[str, Wish]
    holdings: Mapping[str, HeldDevices]
    now: float


def turn(queue: Queue, key: str) -> tuple[int, ...]:
    """Return the devices on which the wish ``key`` starts now; none where it is not its turn."""
    return _starts(state_of(queue)).get(key, ())


def turn_if_free(queue: Queue, key: str) -> bool:
    """Return whether the wish ``key`` would start if nothing held any device."""
    return key in _starts(replace(state_of(queue), running={}))


def waits(queue: Queue) -> bool:
    """Return whether any wish waits that could start, or that will be ready in a moment."""
    return bool(state_of(queue).waiting)


def lacking(queue: Queue) -> int:
    """Return how many devices have to be given up by those that give way, so that all start that would without them."""
    ways = {key: held for key, held in queue.holdings.items() if not held.gives_way}
    starts = _starts(state_of(replace(queue, holdings=ways)))
    wanted = sum(len(devices) for key, devices in starts.items() if queue.wishes[key].ready)
    taken = {device for held in queue.holdings.values() for device in held.devices}
    return max(0, wanted - (queue.size - len(taken)))


def state_of(queue: Queue) -> State:
    """Return the scheduler's state. Wishes that are long not ready are left out, and those that the pool can never serve."""
    waiting, running = {}, {}
    for key, wish in queue.wishes.items():
        late = not wish.ready and queue.now - wish.since > SETTLE_SECONDS
        if wish.demand.gpus <= queue.size and not late:
            waiting[key] = WaitingJob(_job(key, wish.demand), wish.since)
    for key, held in queue.holdings.items():
        devices = tuple(Device(POOL, index) for index in held.devices)
        ends = held.started + held.demand.seconds
        running[key] = RunningJob(_job(key, held.demand), _option(held.demand), devices, ends)
    return State((Node(POOL, KIND, queue.size, 0.0),), queue.now, waiting, running, served_by(running))


def _starts(state: State) -> dict[str, tuple[int, ...]]:
    return {each.key: tuple(device.gpu for device in each.devices) for each in decide(state, SchedulingPolicy())}


def _job(key: str, demand: Demand) -> ScheduledJob:
    return ScheduledJob(key, (_option(demand),), demand.campaign, demand.priority, leads=demand.leads)


def _option(demand: Demand) -> Option:
    return Option(KIND, demand.seconds, tensor_parallel=demand.gpus)
