"""The jobs that get GPUs next. Pure: campaigns that run and the simulator call the same functions.

`decide` is the scheduler: a state gives the jobs to start now. Longest jobs go first; a job that cannot start yet reserves the
GPUs on which it would end soonest, and what comes behind it fills the gaps without delaying it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heapreplace

from core.planning.schedule.jobs import Device, Option, Start, State, WaitingJob
from core.planning.schedule.profile import Profile, TimeSlot

LATE = 0.05  # of its time is what a job that should have ended is expected to take yet, again and again
GANG_BIASES = (0.0, 0.1, 0.25, 0.5, 1.0)
WORTH_CHANGING = 0.02  # of the makespan is what another order must save before a plan that people know is changed


@dataclass(frozen=True)
class SchedulingPolicy:
    """Numbers of the scheduler."""

    patience_seconds: float = 24 * 3600.0  # whoever waited longer goes first, whatever its size and priority
    reservations: int = 256  # waiting jobs that nothing behind them may delay
    gang_bias: float = 0.1  # a gang of g GPUs counts as g to this power times as long as it is


def ordered(state: State, policy: SchedulingPolicy) -> list[WaitingJob]:
    """Sort the queue: jobs that waited too long; then by priority; within one priority campaigns in turn, the least served first.

    Within a campaign come those that lead it, then the longest. Equals keep the order of their arrival.
    """
    overdue: list[WaitingJob] = []
    others: dict[int, dict[str, list[WaitingJob]]] = defaultdict(lambda: defaultdict(list))
    for each in state.waiting.values():
        if state.now - each.since >= policy.patience_seconds:
            overdue.append(each)
        else:
            others[each.job.priority][each.job.campaign].append(each)
    sizes = {key: -size(each.job.quickest, policy) for key, each in state.waiting.items()}
    found = sorted(overdue, key=lambda each: (each.since, sizes[each.job.key]))
    for priority in sorted(others, reverse=True):
        found += _in_turn(state, others[priority], sizes)
    return found


def size(option: Option, policy: SchedulingPolicy) -> float:
    """Return the rank of a job by one option: its seconds, more for gangs, which need several GPUs free at once."""
    return option.seconds * option.gpus**policy.gang_bias


def _in_turn(
    state: State, campaigns: Mapping[str, list[WaitingJob]], sizes: Mapping[str, float]
) -> Iterable[WaitingJob]:
    """Merge campaigns so that each gets as many GPU-seconds."""
    queues = {
        name: sorted(each, key=lambda waiting: (not waiting.job.leads, sizes[waiting.job.key]))
        for name, each in campaigns.items()
    }
    if len(queues) == 1:
        yield from next(iter(queues.values()))
        return
    places = {key: place for place, key in enumerate(state.waiting)}
    turns = [(state.served.get(name, 0.0), places[queue[0].job.key], name, 0) for name, queue in queues.items()]
    heapify(turns)
    while turns:
        served, order, name, position = turns[0]
        waiting = queues[name][position]
        yield waiting
        if position + 1 == len(queues[name]):
            heappop(turns)
        else:
            heapreplace(turns, (served + waiting.job.gpu_seconds, order, name, position + 1))


def decide(state: State, policy: SchedulingPolicy) -> tuple[Start, ...]:
    """Return the jobs that start now, on which devices. It depends on ``state`` alone: all processes decide alike."""
    if not state.waiting:
        return ()
    profile = profile_of(state)
    if not profile.idle:
        return ()
    idle, reserved = idle_devices(state), 0
    starts: list[Start] = []
    for waiting in ordered(state, policy):
        if not profile.idle:
            break
        find = profile.best if reserved < policy.reservations else profile.at_once
        if (slot := find(waiting.job.options)) is None:
            continue
        profile.take(slot)
        if slot.start <= state.now:
            starts.append(start_of(waiting, slot, idle))
        else:
            reserved += 1
    return tuple(starts)


@dataclass(frozen=True)
class Timetable:
    """The future if every job takes as long as estimated: a slot for each waiting job but those that fit nowhere."""

    slots: Mapping[str, TimeSlot]
    ends: float  # when the last job ends


def timetable(state: State, policy: SchedulingPolicy) -> Timetable:
    """Reserve a slot for every waiting job, in order. `decide` will start each then, if nothing else happens."""
    profile = profile_of(state)
    slots: dict[str, TimeSlot] = {}
    for waiting in ordered(state, policy):
        if slot := profile.best(waiting.job.options):
            profile.take(slot)
            slots[waiting.job.key] = slot
    running = [max(each.ends, state.now) for each in state.running.values()]
    ends = max([state.now, *running, *(slot.ends for slot in slots.values())])
    return Timetable(slots, ends)


def choose(state: State, policy: SchedulingPolicy) -> SchedulingPolicy:
    """Return the policy with the ``gang_bias`` whose timetable ends soonest; its own stays unless another is clearly better."""
    best, ends = policy, timetable(state, policy).ends
    limit = ends - WORTH_CHANGING * (ends - state.now)
    for bias in GANG_BIASES:
        other = replace(policy, gang_bias=bias)
        if (found := timetable(state, other).ends) < limit:
            best, limit = other, found
    return best


def idle_devices(state: State) -> dict[str, list[int]]:
    """Return the indices of each node's devices that hold nothing."""
    taken: dict[str, set[int]] = defaultdict(set)
    for each in state.running.values():
        for device in each.devices:
            taken[device.node].add(device.gpu)
    return {node.name: [index for index in range(node.gpus) if index not in taken[node.name]] for node in state.nodes}


def profile_of(state: State) -> Profile:
    """Return the free GPUs over time, if what runs ends as expected and nothing starts."""
    busy: dict[str, list[float]] = defaultdict(list)
    for each in state.running.values():
        ends = max(each.ends, state.now + LATE * each.option.seconds)
        for device in each.devices:
            busy[device.node].append(ends)
    return Profile(state.now, state.nodes, busy)


def start_of(waiting: WaitingJob, slot: TimeSlot, idle: dict[str, list[int]]) -> Start:
    """Return the start of a job, its devices taken out of ``idle``, those of lowest index first."""
    devices: list[Device] = []
    for name, groups in slot.groups:
        count = groups * slot.option.tensor_parallel
        devices += [Device(name, index) for index in idle[name][:count]]
        del idle[name][:count]
    return Start(waiting.job.key, slot.option, tuple(devices))
