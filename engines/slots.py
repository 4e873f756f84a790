"""Devices of this machine and who holds them, across processes: no device is given out twice, whoever asks.

A slot is a file that its holder keeps locked. The kernel gives the lock back once every process that has it open is
gone, killed or not, so the engine's process holds it too: a device is free when what ran on it has ended. Waiters hold a
ticket, a locked file as well, and are served in the order of `core.schedule.next_to_start`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from core.campaign import FleetSpec
from core.errors import EngineDiedError
from core.schedule import Demand, next_to_start
from engines.devices import INHERITED, visible_names
from engines.distributed import runtime


@dataclass(frozen=True)
class DevicePool:
    """Devices that are given out together: of ``kind`` "cuda" or "cpu" on this machine, or of one Ray cluster."""

    kind: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Holder:
    """Who holds a device, as it wrote down itself."""

    device: str
    label: str
    pid: int


@dataclass(frozen=True)
class _Wish:
    """What a ticket asks for."""

    kind: str
    names: Sequence[str]
    gpus: int


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


class Ticket:
    """A place in the queue for ``gpus`` devices of ``pool``. Not for use from two threads at once."""

    def __init__(self, pool: DevicePool, gpus: int, label: str) -> None:
        if gpus > len(pool.names):
            raise ValueError(f"{gpus} devices asked of {len(pool.names)}")
        self._pool, self._gpus, self._label = pool, gpus, label
        # Written and locked under another name: whoever sees a ticket sees a whole and a living one.
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        self._path = _folder() / f"{name}.ticket"
        draft = self._path.with_suffix(".draft")
        self._descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        os.write(self._descriptor, json.dumps(asdict(_Wish(pool.kind, pool.names, gpus))).encode())
        draft.rename(self._path)

    def take(self) -> Held | None:
        """Take the devices if it is our turn and they are free; the ticket is used up then."""
        with _ledger():
            held = _take(self._pool, self._gpus, self._label, self._is_next)
            if held is not None:
                self.drop()
            return held

    def is_first(self) -> bool:
        """Whether nobody is served before this ticket, however many devices come free."""
        with _ledger():
            return self._is_next(len(self._pool.names))

    def drop(self) -> None:
        """Leave the queue. Safe to call twice."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_next(self, free: int) -> bool:
        rivals = _rivals(self._pool)
        first = next_to_start([Demand(order, wish.gpus) for order, (_, wish) in enumerate(rivals)], free)
        return first is not None and rivals[first.order][0] == self._path


def take_idle(pool: DevicePool, gpus: int, label: str) -> Held | None:
    """Take ``gpus`` devices that are free and that nobody waits for; None where there are fewer."""
    with _ledger():
        return None if _rivals(pool) else _take(pool, gpus, label, lambda free: free >= gpus)


def lacking(pool: DevicePool) -> int:
    """How many devices have to come free for the next who waits for some of ``pool``."""
    with _ledger():
        rivals = _rivals(pool)
        first = next_to_start([Demand(order, wish.gpus) for order, (_, wish) in enumerate(rivals)], sys.maxsize)
        if first is None:
            return 0
        slots = [slot for name in pool.names if (slot := _lock(_slot_path(pool.kind, name)))]
        for slot in slots:
            os.close(slot)
        return max(0, first.gpus - len(slots))


def _take(pool: DevicePool, gpus: int, label: str, may: Callable[[int], bool]) -> Held | None:
    """Take ``gpus`` devices where ``may``, told how many are free, allows it. Within the ledger."""
    free = {name: slot for name in pool.names if (slot := _lock(_slot_path(pool.kind, name)))}
    chosen: list[str] = []
    try:
        if may(len(free)):
            chosen = list(free)[:gpus]
    finally:
        for name in free.keys() - set(chosen):
            os.close(free[name])
    for name in chosen:
        _write_holder(free[name], label)
    return Held(pool, chosen, [free[name] for name in chosen]) if chosen else None


def _rivals(pool: DevicePool) -> list[tuple[Path, _Wish]]:
    """Tickets for any of the pool's devices, in the order they were drawn. Within the ledger."""
    return [
        (path, wish)
        for path, wish in _living_wishes()
        if wish.kind == pool.kind and not set(wish.names).isdisjoint(pool.names)
    ]


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
    found = []
    with _ledger():
        for name in pool.names:
            path = _slot_path(pool.kind, name)
            if slot := _lock(path):
                os.close(slot)
                continue
            with suppress(ValueError, KeyError):  # its holder has not written yet
                told = json.loads(path.read_text(encoding="utf-8"))
                found.append(Holder(name, str(told["label"]), int(told["pid"])))
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
    taken = []
    with _ledger():
        for name in names:
            slot = _lock(_slot_path(kind, name))
            if slot is None:
                raise EngineDiedError(f"device {name} is in use by another engine")
            _write_holder(slot, label)
            taken.append(slot)
    return tuple(taken)


def _folder() -> Path:
    folder = runtime.directory() / "slots"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _slot_path(kind: str, name: str) -> Path:
    return _folder() / f"{kind}-{name}.slot"


@contextmanager
def _ledger() -> Iterator[None]:
    """Whoever looks at slots and tickets is alone."""
    with (_folder() / "ledger.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock(path: Path) -> int | None:
    """Open ``path`` and lock it; None where another holds it. Descriptors are not inherited unless passed on."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _write_holder(descriptor: int, label: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"label": label, "pid": os.getpid()}).encode(), 0)


def _living_wishes() -> list[tuple[Path, _Wish]]:
    """Tickets in the order they were drawn; those of processes that are gone are cleared away."""
    living = []
    for path in sorted(_folder().glob("*.ticket")):
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                path.unlink()
            except BlockingIOError:
                living.append((path, _Wish(**json.loads(path.read_text(encoding="utf-8")))))
            finally:
                os.close(descriptor)
    return living
