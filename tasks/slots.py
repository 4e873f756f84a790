"""GPUs of one campaign process: who holds which, and who waits."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.schedule import Demand, next_to_start


class GpuBudget:
    """Hands out device indices of a fleet of ``gpus`` GPUs, in the order `core.schedule.next_to_start` says."""

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self._free = list(range(gpus))
        self._waiting: dict[Demand, asyncio.Future[tuple[int, ...]]] = {}
        self._order = itertools.count()

    @asynccontextmanager
    async def hold(self, gpus: int) -> AsyncIterator[tuple[int, ...]]:
        """Wait for ``gpus`` devices and give them back at the end. Raises ValueError where the fleet has fewer."""
        if gpus > self.gpus:
            raise ValueError(f"{gpus} GPUs asked of a fleet of {self.gpus}")
        demand = Demand(next(self._order), gpus)
        granted: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()
        self._waiting[demand] = granted
        self._start_waiting()
        try:
            devices = await granted
        except asyncio.CancelledError:
            self._waiting.pop(demand, None)
            if granted.done() and not granted.cancelled():
                self._give_back(granted.result())
            else:
                self._start_waiting()
            raise
        try:
            yield devices
        finally:
            self._give_back(devices)

    def _give_back(self, devices: tuple[int, ...]) -> None:
        self._free = sorted([*self._free, *devices])
        self._start_waiting()

    def _start_waiting(self) -> None:
        while demand := next_to_start(list(self._waiting), len(self._free)):
            devices, self._free = tuple(self._free[: demand.gpus]), self._free[demand.gpus :]
            self._waiting.pop(demand).set_result(devices)
