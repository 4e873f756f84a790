"""What is scheduled and on what: jobs, each one model on its benchmarks, and nodes with GPUs of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
class Job:
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
    """Say whether a node can hold at least one of the option's groups."""
    return (
        option.kind == node.kind
        and option.memory_gb <= node.memory_gb
        and option.tensor_parallel <= node.gpus
        and (node.links or option.gpus == 1)
    )


def runnable(job: Job, nodes: Sequence[Node]) -> bool:
    """Say whether the whole fleet, empty, could run the job in one of its ways."""
    return any(
        sum(node.gpus // option.tensor_parallel for node in nodes if fits(option, node)) >= option.stages
        for option in job.options
    )
