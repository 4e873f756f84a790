"""In which order waiting jobs are served. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from core.schedule.state import State, Waiting


@dataclass(frozen=True)
class SchedulingPolicy:
    """Numbers of the scheduler."""

    patience_seconds: float = 24 * 3600.0  # whoever waited longer goes first, whatever its size and priority
    reservations: int = 256  # waiting jobs that nothing behind them may delay
    gang_bias: float = 0.1  # a gang of g GPUs counts as g to this power times as long as it is
    share_gpus: bool = False  # two single-GPU models on one GPU where memory and the estimates say that it pays
    share_gain: float = 1.15  # least speed of the two together, in relation to one after the other
    share_memory: float = 0.9  # of a GPU's that two models may use


def ordered(state: State, policy: SchedulingPolicy) -> list[Waiting]:
    """Sort the queue: who waited too long; then by priority, and within one priority

    those whose deadline is near, by their latest start; then campaigns in turn, the least served by its weight first, and within
    a campaign those that lead it, then the longest job first. Equals keep the order of their arrival.
    """
    overdue: list[Waiting] = []
    urgent: list[tuple[int, float, Waiting]] = []
    others: dict[int, dict[str, list[Waiting]]] = defaultdict(lambda: defaultdict(list))
    backlog = _backlog(state) if any(each.job.deadline is not None for each in state.waiting.values()) else 0.0
    for each in state.waiting.values():
        if state.now - each.since >= policy.patience_seconds:
            overdue.append(each)
            continue
        latest = None if each.job.deadline is None else each.job.deadline - each.quickest[1]
        # The queue drains within the backlog: a job that may start later than that is in no hurry.
        if latest is not None and latest <= state.now + backlog:
            urgent.append((-each.job.priority, latest, each))
        else:
            others[-each.job.priority][each.job.campaign].append(each)
    sizes = {key: -size(each, policy) for key, each in state.waiting.items()}
    found = sorted(overdue, key=lambda each: (each.since, sizes[each.job.key], each.order))
    urgent.sort(key=lambda item: (item[0], item[1], item[2].order))
    for priority in sorted({*others, *(item[0] for item in urgent)}):
        found += [each for level, _, each in urgent if level == priority]
        found += _in_turn(state, others[priority], sizes)
    return found


def size(waiting: Waiting, policy: SchedulingPolicy) -> float:
    """How early a job goes: its seconds, more for gangs, which need several GPUs free at once."""
    option, seconds = waiting.quickest
    return seconds * option.gpus**policy.gang_bias


def _in_turn(state: State, campaigns: Mapping[str, list[Waiting]], sizes: Mapping[str, float]) -> Iterable[Waiting]:
    """Merge campaigns so that each gets GPU-seconds by its weight."""
    queues = {
        name: sorted(each, key=lambda waiting: (not waiting.job.leads, sizes[waiting.job.key], waiting.order))
        for name, each in campaigns.items()
    }
    if len(queues) == 1:
        yield from next(iter(queues.values()))
        return
    turns = [(state.served.get(name, 0.0), queue[0].order, name, 0) for name, queue in queues.items()]
    heapify(turns)
    while turns:
        served, order, name, position = turns[0]
        queue = queues[name]
        waiting = queue[position]
        yield waiting
        if position + 1 == len(queue):
            heappop(turns)
            continue
        served += waiting.gpu_seconds / state.weight(name)
        heapreplace(turns, (served, order, name, position + 1))


def _backlog(state: State) -> float:
    """Seconds in which the fleet would have done everything that waits and runs."""
    gpus = sum(node.gpus for node in state.nodes) - len(state.down)
    waits = sum(each.gpu_seconds for each in state.waiting.values())
    runs = sum(max(0.0, each.ends - state.now) * each.option.gpus for each in state.running.values())
    longest = max((each.quickest[1] for each in state.waiting.values()), default=0.0)
    return (waits + runs) / max(1, gpus) + longest
