"""In which order waiting jobs are served. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from core.planning.schedule.jobs import Option
from core.planning.schedule.state import State, Waiting


@dataclass(frozen=True)
class SchedulingPolicy:
    """Numbers of the scheduler."""

    patience_seconds: float = 24 * 3600.0  # whoever waited longer goes first, whatever its size and priority
    reservations: int = 256  # waiting jobs that nothing behind them may delay
    gang_bias: float = 0.1  # a gang of g GPUs counts as g to this power times as long as it is


def ordered(state: State, policy: SchedulingPolicy) -> list[Waiting]:
    """Sort the queue: jobs that waited too long; then by priority; within one priority campaigns in turn, the least served first.

    Within a campaign come those that lead it, then the longest. Equals keep the order of their arrival.
    """
    overdue: list[Waiting] = []
    others: dict[int, dict[str, list[Waiting]]] = defaultdict(lambda: defaultdict(list))
    for each in state.waiting.values():
        if state.now - each.since >= policy.patience_seconds:
            overdue.append(each)
        else:
            others[each.job.priority][each.job.campaign].append(each)
    sizes = {key: -size(each.job.quickest, policy) for key, each in state.waiting.items()}
    found = sorted(overdue, key=lambda each: (each.since, sizes[each.job.key], each.order))
    for priority in sorted(others, reverse=True):
        found += _in_turn(state, others[priority], sizes)
    return found


def size(option: Option, policy: SchedulingPolicy) -> float:
    """How early a job goes: its seconds, more for gangs, which need several GPUs free at once."""
    return option.seconds * option.gpus**policy.gang_bias


def _in_turn(state: State, campaigns: Mapping[str, list[Waiting]], sizes: Mapping[str, float]) -> Iterable[Waiting]:
    """Merge campaigns so that each gets as many GPU-seconds."""
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
        heapreplace(turns, (served + waiting.job.gpu_seconds, order, name, position + 1))
