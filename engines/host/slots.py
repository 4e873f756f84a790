"""Devices of this machine and who holds them, across processes: no device is given out twice, whoever asks.

A slot is a file that its holder keeps locked. The kernel gives the lock back once every process that has it open is
gone, killed or not, so the engine's process holds it too: a device is free when what ran on it has ended. Who waits for
slots, and whose turn it is: `engines.host.queue`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.campaign import FleetSpec
from core.errors import EngineDiedError
from core.planning.schedule.turns import Demand
from engines.engine import EngineConfig
from engines.host.folder import runtime_folder


@dataclass(frozen=True)
class DevicePool:
    """Devices that are given out together: of ``kind`` "cuda" or "cpu" on this machine, or of one Ray cluster."""

    kind: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Holder:
    """Who holds a device, as it wrote down itself: for whom, under which ticket, and since when (unix seconds)."""

    device: str
    demand: Demand
    pid: int
    key: str
    started: float
    gives_way: bool = False

    @property
    def label(self) -> str:
        """Name of what holds it, for people."""
        return self.demand.label


class Held:
    """Slots that are ours: ``devices`` are their indices in the pool. To be released once."""

    def __init__(self, pool: DevicePool, names: Sequence[str], descriptors: Sequence[int]) -> None:
        self.pool = pool
        self.devices = tuple(pool.names.index(name) for name in names)
        self.descriptors = tuple(descriptors)

    def release(self) -> None:
        """Let go. Processes that inherited the slots hold them until they end."""
        descriptors, self.descriptors = self.descriptors, ()
        for descriptor in descriptors:
            os.close(descriptor)


def device_pool(fleet: FleetSpec, engine: str, environment: Mapping[str, str]) -> DevicePool:
    """The devices an engine of a placement may get: those of the fleet's Ray cluster, else this machine's.

    On a machine without GPUs all nodes of a fleet are here, as logical devices.
    """
    if fleet.ray_address is not None and engine == "distributed":
        cluster = re.sub(r"[^A-Za-z0-9]+", "-", fleet.ray_address)
        return DevicePool(f"ray-{cluster}", tuple(map(str, range(fleet.nodes * fleet.gpus))))
    if fleet.device == "cpu":
        return DevicePool("cpu", tuple(map(str, range(fleet.nodes * fleet.gpus))))
    return DevicePool(fleet.device, tuple(visible_names(range(fleet.gpus), environment)))


def holders(pool: DevicePool) -> list[Holder]:
    """Who holds devices of ``pool`` now."""
    with ledger():
        return read_holders(pool, free_names(pool))


def read_holders(pool: DevicePool, free: Container[str]) -> list[Holder]:
    """Who holds the devices of ``pool`` that are not ``free``, but for those that have not written yet. Within the ledger."""
    found = []
    for name in pool.names:
        if name not in free:
            with suppress(ValueError, KeyError, TypeError):
                told = json.loads(_slot_path(pool.kind, name).read_text(encoding="utf-8"))
                found.append(Holder(**{**told, "device": name, "demand": Demand(**told["demand"])}))
    return found


def inherited(environment: Mapping[str, str]) -> tuple[int, ...]:
    """Descriptors of the slots that this process was started with."""
    return tuple(int(number) for number in environment.get(INHERITED, "").split(",") if number)


def keep(kind: str, names: Sequence[str], label: str, environment: Mapping[str, str]) -> tuple[int, ...]:
    """Hold devices until this process ends: the slots it inherited, or, where it was started with none, new ones.

    Raises `core.errors.EngineDiedError` where another process holds one.
    """
    if given := inherited(environment):
        return given
    with ledger():
        free = lock_free(DevicePool(kind, tuple(names)))
        if missing := [name for name in names if name not in free]:
            raise EngineDiedError(f"device {missing[0]} is in use by another engine")
        write_holder(free, Demand(label, len(names)), label)
    return tuple(free.values())


def lock_free(pool: DevicePool) -> dict[str, int]:
    """Lock every device of ``pool`` that nobody holds; returns their descriptors by name. Within the ledger."""
    return {name: slot for name in pool.names if (slot := lock(_slot_path(pool.kind, name))) is not None}


def free_names(pool: DevicePool) -> set[str]:
    """Names of the devices that `lock_free` would lock. Within the ledger."""
    free = lock_free(pool)
    for slot in free.values():
        os.close(slot)
    return set(free)


def write_holder(slots: Mapping[str, int], demand: Demand, key: str, *, gives_way: bool = False) -> None:
    """Write into slots that are locked who holds them from now."""
    for name, descriptor in slots.items():
        holder = Holder(name, demand, os.getpid(), key, time.time(), gives_way)
        rewrite(descriptor, asdict(holder))


def rewrite(descriptor: int, told: Mapping[str, Any]) -> None:
    """Put ``told``, JSON values, in place of all that a file says."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(told).encode(), 0)


def folder() -> Path:
    """Where slots and tickets are."""
    path = runtime_folder() / "slots"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


@contextmanager
def ledger() -> Iterator[None]:
    """Whoever looks at slots and tickets is alone."""
    with (folder() / "ledger.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def lock(path: Path) -> int | None:
    """Open ``path`` and lock it; None where another holds it. Descriptors are not inherited unless passed on."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _slot_path(kind: str, name: str) -> Path:
    return folder() / f"{kind}-{name}.slot"


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
