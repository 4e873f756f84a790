"""Slots of this machine's devices, held across processes: no device is given out twice.

A slot is a file that its holder keeps locked. The kernel releases the lock once every process that has the file open is gone,
killed or not; the engine's process holds it too, so a device is free when what ran on it has ended. The queue for slots is in
`engines.host.queue`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Collection, Container, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.campaign import FleetSpec
from core.errors import EngineDiedError
from core.planning.schedule.turns import Demand
from engines.engine import EngineConfig
from engines.host.folder import locked, runtime_folder

INHERITED = "STEELYARD_SLOTS"  # descriptors of the slots that a process was started with


@dataclass(frozen=True)
class DevicePool:
    """Devices that are given out together: of ``kind`` "cuda" or "cpu" on this machine, or of one Ray cluster."""

    kind: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Holder:
    """The holder of a device, as it wrote itself down: its demand, its process, its ticket, and since when (unix seconds)."""

    device: str
    demand: Demand
    pid: int
    key: str
    started: float
    gives_way: bool = False

    @property
    def label(self) -> str:
        """The holder's name, for people."""
        return self.demand.label


class Held:
    """Slots that this process holds, to be released once. ``devices`` are their indices in the pool."""

    def __init__(self, pool: DevicePool, names: Sequence[str], descriptors: Sequence[int]) -> None:
        self.pool = pool
        self.devices = tuple(pool.names.index(name) for name in names)
        self.descriptors = tuple(descriptors)

    def release(self) -> None:
        """Release the slots. Processes that inherited them hold them until they end."""
        descriptors, self.descriptors = self.descriptors, ()
        for descriptor in descriptors:
            os.close(descriptor)


def device_pool(fleet: FleetSpec, engine: str, environment: Mapping[str, str]) -> DevicePool:
    """Return the devices that an engine of a placement may get: those of the fleet's Ray cluster, else this machine's.

    On a machine without GPUs all nodes of a fleet are here, as logical devices.
    """
    if fleet.ray_address is not None and engine == "distributed":
        cluster = re.sub(r"[^A-Za-z0-9]+", "-", fleet.ray_address)
        return DevicePool(f"ray-{cluster}", tuple(map(str, range(fleet.nodes * fleet.gpus))))
    if fleet.device == "cpu":
        return DevicePool("cpu", tuple(map(str, range(fleet.nodes * fleet.gpus))))
    return DevicePool(fleet.device, tuple(visible_names(range(fleet.gpus), environment)))


def holders(pool: DevicePool) -> list[Holder]:
    """Return the present holders of devices of ``pool``."""
    with ledger():
        return read_holders(pool, free_names(pool))


def read_holders(pool: DevicePool, free: Container[str]) -> list[Holder]:
    """Return the holders of the devices of ``pool`` that are not ``free``, but for those not written yet. Within the ledger."""
    found = []
    for name in pool.names:
        if name not in free:
            with suppress(ValueError, KeyError, TypeError):
                told = json.loads(_slot_path(pool.kind, name).read_text(encoding="utf-8"))
                found.append(Holder(**{**told, "device": name, "demand": Demand(**told["demand"])}))
    return found


def keep(kind: str, names: Sequence[str], label: str, environment: Mapping[str, str]) -> tuple[int, ...]:
    """Hold devices until this process ends: the slots it inherited, or, where it was started with none, new ones.

    Raises `core.errors.EngineDiedError` where another process holds one.
    """
    if given := environment.get(INHERITED):
        return tuple(map(int, given.split(",")))
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
    """Write this process into locked slots as their holder from now on."""
    for name, descriptor in slots.items():
        holder = Holder(name, demand, os.getpid(), key, time.time(), gives_way)
        rewrite(descriptor, asdict(holder))


def rewrite(descriptor: int, told: Mapping[str, Any]) -> None:
    """Replace a file's content by ``told``, JSON values."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(told).encode(), 0)


def folder() -> Path:
    """Return the folder of slots and tickets."""
    path = runtime_folder() / "slots"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def ledger() -> AbstractContextManager[None]:
    """Hold the lock of all slots and tickets."""
    return locked(folder() / "ledger.lock")


def lock(path: Path) -> int | None:
    """Open ``path`` and lock it; None where another process holds it. The descriptor is not inherited unless passed on."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _slot_path(kind: str, name: str) -> Path:
    return folder() / f"{kind}-{name}.slot"


def device_environment(config: EngineConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that show a process with ``environment`` the devices of ``config`` alone, before CUDA is initialised."""
    if config.device != "cuda" or not config.devices:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(visible_names(config.devices, environment))}


def visible_names(devices: Sequence[int], environment: Mapping[str, str]) -> list[str]:
    """Return CUDA's names of ``devices``. Indices count within ``CUDA_VISIBLE_DEVICES`` where that is set, as CUDA's own do."""
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return [visible[device] if device < len(visible) else str(device) for device in devices]


def cores_of(devices: Sequence[int], of: int, cores: Collection[int]) -> tuple[int, ...]:
    """Return the cores of logical ``devices`` on a machine without GPUs, ``of`` of which share ``cores`` evenly; ids, in order.

    Where devices outnumber cores, some have the same one.
    """
    ordered = sorted(cores)
    each = max(1, len(ordered) // of)
    shares = [ordered[begin : begin + each] for begin in range(0, each * (len(ordered) // each), each)]
    return tuple(sorted({core for device in devices for core in shares[device % len(shares)]}))


def keep_to(cores: Collection[int]) -> None:
    """Keep this process, and what it starts from now on, to ``cores``; without any it may run where it may now."""
    if cores and hasattr(os, "sched_setaffinity"):
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # ended meanwhile
                os.sched_setaffinity(int(thread.name), cores)
