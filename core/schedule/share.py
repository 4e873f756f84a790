"""Two single-GPU models on one GPU, where memory and the estimates say that it pays. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import inf

from core.schedule.jobs import Node, Option
from core.schedule.order import SchedulingPolicy
from core.schedule.profile import Profile, Slot
from core.schedule.state import Running, Start, State, Waiting, shared_rate


def shared_starts(
    state: State,
    queue: Sequence[Waiting],
    profile: Profile,
    reserved: Mapping[str, Slot],
    policy: SchedulingPolicy,
) -> list[Start]:
    """Start jobs of the queue beside one that runs alone on a GPU.

    Memory must do for both, the two together must be faster than one after the other by the policy's gain, the newcomer must end
    sooner than in the slot it has reserved, and the other, slowed down, must not end after its deadline or in another's slot.
    """
    nodes = {node.name: node for node in state.nodes}
    tenants = Counter(each.devices[0] for each in state.running.values() if len(each.devices) == 1)
    hosts = [
        each.at(state.now) for each in state.running.values() if each.option.gpus == 1 and tenants[each.devices[0]] == 1
    ]
    hosts.sort(key=lambda each: (each.option.busy, each.waited.order))
    starts: list[Start] = []
    for waiting in queue:
        if not hosts:
            break
        own = reserved.get(waiting.job.key)
        if own is not None:
            profile.give_back(own)  # or it would be in its own way
        found = _host_of(waiting, hosts, nodes, inf if own is None else own.ends, profile, state.now, policy)
        if found is not None:
            host, option = found
            hosts.remove(host)
            starts.append(Start(waiting.job.key, option, host.devices, beside=host.job.key))
        elif own is not None:
            profile.take(own)
    return starts


def _host_of(
    waiting: Waiting,
    hosts: Sequence[Running],
    nodes: Mapping[str, Node],
    before: float,
    profile: Profile,
    now: float,
    policy: SchedulingPolicy,
) -> tuple[Running, Option] | None:
    for option, seconds in waiting.options:
        if option.gpus > 1:
            continue
        for host in hosts:
            node = nodes[host.devices[0].node]
            rate = shared_rate(option, host.option)
            if 2 * rate < policy.share_gain:
                break  # the busier ones will not do either
            together = option.memory_gb + host.option.memory_gb
            if option.kind != node.kind or together > policy.share_memory * node.memory_gb:
                continue
            ends, host_ends = now + seconds / rate, now + host.left / rate
            if ends >= before or (host.job.deadline is not None and host_ends > host.job.deadline):
                continue
            if profile.extend(node.name, host.ends, max(ends, host_ends)):
                return host, option
    return None
