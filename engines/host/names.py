"""From a fleet's device indices to what CUDA calls them, or to CPU cores, and how an engine's process is told of its slots."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from engines.engine import EngineConfig

INHERITED = "STEELYARD_SLOTS"  # descriptors of slots that a process was started with; see `engines.host.slots`


def device_environment(config: EngineConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """What shows a process the devices of ``config`` and no others; ``environment`` is what it has, before CUDA is initialised."""
    if config.device != "cuda" or not config.devices:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(visible_names(config.devices, environment))}


def visible_names(devices: Sequence[int], environment: Mapping[str, str]) -> list[str]:
    """CUDA's names of ``devices``. Indices count within ``CUDA_VISIBLE_DEVICES`` where that is set, as CUDA's own do."""
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return [visible[device] if device < len(visible) else str(device) for device in devices]


def cores_of(devices: Sequence[int], of: int, cores: Collection[int]) -> tuple[int, ...]:
    """The cores of logical ``devices`` on a machine without GPUs, ``of`` of which share ``cores`` evenly; ids, in order.

    Where devices outnumber cores, some have the same one.
    """
    ordered = sorted(cores)
    each = max(1, len(ordered) // of)
    shares = [ordered[begin : begin + each] for begin in range(0, each * (len(ordered) // each), each)]
    return tuple(sorted({core for device in devices for core in shares[device % len(shares)]}))


def keep_to(cores: Collection[int]) -> None:
    """Have this process, and what it starts from now on, run on ``cores`` alone; anywhere it may now where that is empty."""
    if cores and hasattr(os, "sched_setaffinity"):
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # ended meanwhile
                os.sched_setaffinity(int(thread.name), cores)
