"""The queue for devices: tickets, served across processes in the order of `core.planning.schedule.turns`.

A ticket is a file that its process keeps locked, as holders keep their slots (`engines.host.slots`). Every process sees the same
queue and comes to the same decision, so none has to be asked.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict

from core.planning.schedule import turns
from core.planning.schedule.turns import Demand, HeldDevices, Queue, Wish
from engines.host import slots
from engines.host.slots import DevicePool, Held, Holder, ledger


class Ticket:
    """A place in the queue for devices of ``pool``. Not for use from two threads at once.

    One that is not ``ready`` keeps its devices free for a while when it is its turn. Raises `ValueError` where the pool has fewer.
    """

    def __init__(self, pool: DevicePool, demand: Demand, *, ready: bool = True) -> None:
        if demand.gpus > len(pool.names):
            raise ValueError(f"{demand.gpus} devices asked of {len(pool.names)}")
        self.pool, self.demand = pool, demand
        self._since = time.time()
        # Written and locked under another name, so that a ticket that is seen is whole and alive.
        self._key = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        self._path = slots.folder() / f"{self._key}.ticket"
        draft = self._path.with_suffix(".draft")
        self._descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._write(ready)
        draft.rename(self._path)

    def be_ready(self) -> None:
        """Let the ticket be served as soon as it is its turn."""
        with ledger():
            self._write(ready=True)

    def take(self) -> Held | None:
        """Acquire the devices if it is the ticket's turn and they are free; the ticket is used up then."""
        with ledger():
            free = slots.lock_free(self.pool)
            chosen = turns.turn(_queue(self.pool, free), self._key)
            held = _hold(self.pool, free, [self.pool.names[index] for index in chosen], self.demand, self._key)
            if held is not None:
                self.drop()
            return held

    def is_first(self) -> bool:
        """Whether the ticket would be served if nothing held any device."""
        with ledger():
            return turns.turn_if_free(_seen(self.pool), self._key)

    def drop(self) -> None:
        """Leave the queue. Safe to call twice."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, ready: bool) -> None:
        slots.rewrite(self._descriptor, asdict(self.pool) | {"wish": asdict(Wish(self.demand, self._since, ready))})


def take_idle(pool: DevicePool, gpus: int, label: str) -> Held | None:
    """Acquire ``gpus`` devices that are free and not waited for; None where there are fewer. They give way to tickets."""
    with ledger():
        free = slots.lock_free(pool)
        enough = len(free) >= gpus and not turns.waits(_queue(pool, free))
        names = list(free)[:gpus] if enough else []
        return _hold(pool, free, names, Demand(label, gpus), secrets.token_hex(8), gives_way=True)


def devices_lacking(pool: DevicePool) -> int:
    """Return how many devices that give way have to come free for the tickets whose turn it would be then."""
    with ledger():
        return turns.lacking(_seen(pool))


def _hold(
    pool: DevicePool,
    free: Mapping[str, int],
    names: Sequence[str],
    demand: Demand,
    key: str,
    *,
    gives_way: bool = False,
) -> Held | None:
    """Hold the slots ``names`` if all of them are among the locked ones, and release the others."""
    chosen = {name: free[name] for name in names} if set(names) <= set(free) else {}
    for name in free.keys() - chosen.keys():
        os.close(free[name])
    if not chosen:
        return None
    slots.write_holder(chosen, demand, key, gives_way=gives_way)
    return Held(pool, list(chosen), list(chosen.values()))


def _seen(pool: DevicePool) -> Queue:
    return _queue(pool, slots.free_names(pool))


def _queue(pool: DevicePool, free: Container[str]) -> Queue:
    now = time.time()
    holdings: dict[str, HeldDevices] = {}
    told = {holder.device: holder for holder in slots.read_holders(pool, free)}
    for index, name in enumerate(pool.names):
        if name not in free:
            holder = told.get(name) or Holder(name, Demand("?", 1, turns.UNKNOWN_SECONDS), 0, name, now)
            before = holdings[holder.key].devices if holder.key in holdings else ()
            holdings[holder.key] = HeldDevices(holder.demand, (*before, index), holder.started, holder.gives_way)
    return Queue(len(pool.names), _wishes(pool), holdings, now)


def _wishes(pool: DevicePool) -> dict[str, Wish]:
    """Return wishes by their tickets' names, oldest first, and clear away the tickets of processes that are gone."""
    living = {}
    for path in sorted(slots.folder().glob("*.ticket")):
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                path.unlink()
            except BlockingIOError:
                asked = json.loads(path.read_text(encoding="utf-8"))
                if asked["kind"] == pool.kind and not set(asked["names"]).isdisjoint(pool.names):
                    wish = asked["wish"]
                    living[path.stem] = Wish(Demand(**wish["demand"]), wish["since"], wish["ready"])
            finally:
                os.close(descriptor)
    return living
