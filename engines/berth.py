"""A device that is promised: its next model loads there while another still works. See `engines.slots`.

A berth is a second file beside a device's slot, locked by whom the device is promised to: nobody else gets it meanwhile. The
engine's process gets both files, the slot's not locked yet. Whoever locks it later does so for that process too, since both have it
from one opening.
"""

from __future__ import annotations

import fcntl
import os

from core.schedule.turns import Demand
from engines.slots import DevicePool, Held, berth_path, ledger, lock, slot_path, write_holder


class Berth(Held):
    """One device, promised. To be made within the ledger, and released once, taken or not."""

    def __init__(self, pool: DevicePool, name: str, demand: Demand, key: str) -> None:
        berth = lock(berth_path(pool.kind, name))
        if berth is None:
            raise ValueError(f"device {name} is promised already")
        self._slot = os.open(slot_path(pool.kind, name), os.O_RDWR)
        self._berth, self._demand, self._key = berth, demand, key
        super().__init__(pool, [name], [self._slot, berth])

    def take(self) -> bool:
        """Hold the device from now on, if what ran on it has ended."""
        with ledger():
            try:
                fcntl.flock(self._slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            write_holder({self.pool.names[self.devices[0]]: self._slot}, self._demand, self._key)
            fcntl.flock(self._berth, fcntl.LOCK_UN)
            return True
