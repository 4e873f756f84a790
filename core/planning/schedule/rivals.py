"""Other ways to schedule, which the simulator sets beside ours. None is used by the flows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from core.planning.schedule.jobs import Job, Node, runnable
from core.planning.schedule.order import SchedulingPolicy
from core.planning.schedule.simulate import Decide
from core.planning.schedule.state import Arrived, Start, State, Waiting, after
from core.planning.schedule.step import choose, decide, idle_devices, profile_of, start_of

OURS = "longest first, backfill"


def policies(nodes: Sequence[Node], jobs: Sequence[Job], policy: SchedulingPolicy) -> dict[str, Decide]:
    """Ours first, then its rivals, by the name that tables give them."""
    state = after(State(tuple(nodes)), 0.0, [Arrived(tuple(jobs))])
    return {
        OURS: partial(decide, policy=choose(state, policy)),
        "one queue, largest first": largest_first,
        "first in, first out": first_in_first_out,
        "small and large apart": apart(nodes, jobs, policy),
    }


def first_in_first_out(state: State) -> tuple[Start, ...]:
    """Start jobs as they came; the first that has to wait holds up all behind it."""
    return _in_line(state, sorted(state.waiting.values(), key=lambda each: each.order))


def largest_first(state: State) -> tuple[Start, ...]:
    """One queue, most GPUs first and then the longest; nothing overtakes the first that has to wait."""
    return _in_line(
        state,
        sorted(
            state.waiting.values(), key=lambda each: (-each.job.quickest.gpus, -each.job.quickest.seconds, each.order)
        ),
    )


def _in_line(state: State, queue: Iterable[Waiting]) -> tuple[Start, ...]:
    profile, idle, starts = profile_of(state), idle_devices(state), []
    for waiting in queue:
        slot = profile.at_once(waiting.job.options)
        if slot is None:
            break
        profile.take(slot)
        starts.append(start_of(waiting, slot, idle))
    return tuple(starts)


def apart(nodes: Sequence[Node], jobs: Sequence[Job], policy: SchedulingPolicy) -> Decide:
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


def _is_gang(job: Job) -> bool:
    return job.quickest.gpus > 1


def _split(
    nodes: Sequence[Node], gangs: Sequence[Job], small: Sequence[Job]
) -> tuple[tuple[Node, ...], tuple[Node, ...]] | None:
    """The split whose slower pipeline has the least to do; None where one pipeline after the other has no more."""
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


def _evenly(nodes: Sequence[Node], jobs: Sequence[Job]) -> float:
    """Seconds until the jobs would be done, were their work spread evenly, and no less than the longest takes."""
    kinds = {node.kind for node in nodes}
    usable = [[option for option in job.options if option.kind in kinds] for job in jobs]
    work = sum(min(option.gpus * option.seconds for option in options) for options in usable)
    longest = max(min(option.seconds for option in options) for options in usable)
    return max(longest, work / sum(node.gpus for node in nodes))
