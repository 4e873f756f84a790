"""Fleets and jobs to schedule: written by hand, and drawn at random."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from hypothesis import strategies as st

from core.planning.schedule.jobs import Device, Node, Option, ScheduledJob, Start, State, after, fits, runnable, started
from core.planning.schedule.scheduler import SchedulingPolicy, decide
from core.planning.schedule.simulate import JobSpan, Simulated


def node(name: str = "n0", gpus: int = 8, kind: str = "H100", memory_gb: float = 80, *, links: bool = True) -> Node:
    return Node(name, kind, gpus, memory_gb, links)


def option(seconds: float, tensor_parallel: int = 1, stages: int = 1, kind: str = "H100", **more: float) -> Option:
    return Option(kind, seconds, more.pop("load", 0.0), tensor_parallel, stages, **more)


def job(key: str, seconds: float, gpus: int = 1, campaign: str = "", **more: float) -> ScheduledJob:
    """A job with one option on one kind, a gang within a node."""
    return ScheduledJob(key, (option(seconds, gpus),), campaign, **more)  # type: ignore[arg-type]


def step(
    state: State, now: float, arrived: Iterable[ScheduledJob], policy: SchedulingPolicy, ended: Iterable[str] = ()
) -> tuple[State, tuple[Start, ...]]:
    """What happened by ``now`` and what starts then: one turn of the simulator."""
    state = after(state, now, arrived, ended)
    starts = decide(state, policy)
    return started(state, starts), starts


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Node, ...]:
    """One to four nodes of one or two kinds; one may be cut into MIG slices."""
    nodes = []
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["H100", "L40S"]))
        gpus = draw(st.sampled_from([1, 2, 4, 8]))
        nodes.append(node(f"n{number}", gpus, kind, 80 if kind == "H100" else 48, links=draw(st.integers(0, 5)) > 0))
    return tuple(nodes)


@st.composite
def options(draw: st.DrawFn) -> Option:
    gang = draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 1), (4, 1), (8, 1), (2, 2), (4, 3), (8, 2)]))
    return Option(
        kind=draw(st.sampled_from(["H100", "L40S"])),
        work_seconds=float(draw(st.integers(1, 100))),
        load_seconds=float(draw(st.integers(0, 10))),
        tensor_parallel=gang[0],
        stages=gang[1],
        memory_gb=float(draw(st.sampled_from([10, 40, 60]))),
    )


@st.composite
def campaigns(draw: st.DrawFn, most: int = 14) -> tuple[tuple[Node, ...], list[ScheduledJob]]:
    """A fleet, and jobs that each fit it in at least one way."""
    nodes = draw(fleets())
    jobs = []
    for number in range(draw(st.integers(1, most))):
        ways = tuple(draw(st.lists(options(), min_size=1, max_size=2)))
        one = ScheduledJob(
            f"j{number:02d}",
            ways,
            draw(st.sampled_from(["a", "b"])),
            draw(st.sampled_from([0, 0, 0, 1])),
        )
        if runnable(one, nodes):
            jobs.append(one)
    return nodes, jobs


def check_devices(nodes: Sequence[Node], run: Simulated) -> None:
    """No GPU is held by two at once, gangs are whole, and stand where they fit."""
    known = {each.name: each for each in nodes}
    by_device: dict[Device, list[JobSpan]] = defaultdict(list)
    for span in run.spans:
        assert len(set(span.devices)) == len(span.devices) == span.option.gpus
        for name, count in Counter(device.node for device in span.devices).items():
            assert fits(span.option, known[name])
            assert count % span.option.tensor_parallel == 0
        for device in span.devices:
            assert 0 <= device.gpu < known[device.node].gpus
            by_device[device].append(span)
    for device, spans in by_device.items():
        for moment in [span.start for span in spans]:
            there = [span for span in spans if span.start <= moment < span.end]
            assert len(there) == 1, (device, there)
