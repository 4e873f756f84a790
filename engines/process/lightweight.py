"""The lightweight engine: vLLM in a process of its own, on the devices of one placement. This side imports no vLLM."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from core.campaign import FleetSpec
from core.model.fleet import gpus_alike
from core.model.placement import PlannedModel
from engines.engine import EngineConfig
from engines.process.child import Child
from engines.process.engine import ProcessEngine, child_environment
from engines.session.cpu_platform import fork_environment

NAME, MODULE = "lightweight", "engines.process.lightweight_process"


class LightweightEngine(ProcessEngine):
    """vLLM on the devices of ``config``, gone with its process.

    Its process comes from `prewarmed`. It is killed at the end: an orderly one takes vLLM 5 s, and all answers are here.
    """

    def __init__(self, config: EngineConfig, slots: Sequence[int] = ()) -> None:
        super().__init__(NAME, MODULE, config, model=config.model, slots=slots)
        self.device = config.device

    def process(self) -> Child:
        """Return the process that waits, or a new one."""
        return prewarmed(self.device).take()


def start_process(device: str, module: str = MODULE) -> Child:
    """Start a process that imports vLLM for ``device`` "cuda" or "cpu", and waits to be told what to load where."""
    environment = child_environment(os.environ)
    if device == "cpu":
        environment |= fork_environment(environment)
    else:
        environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return Child(NAME, module, environment, scratch=True)


class Prewarmed:
    """A pool of at most one process that waits, its libraries imported, before devices are free. Safe for several threads.

    ``start`` starts one. When one is taken while further claims are open, the next is started.
    """

    def __init__(self, start: Callable[[], Child]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._claims = 0
        self._waiting: Child | None = None

    def take(self) -> Child:
        """Return the process that waits, or a new one, for the caller to end."""
        with self._lock:
            child = self._waiting or self._start()
            if child.exited.is_set():  # the kernel may have chosen it to free memory
                child.discard()
                child = self._start()
            others = self._claims - 1  # the taker has a claim too
            self._waiting = self._start() if others > 0 else None
            return child

    def begin(self) -> None:
        """Count one more claim, and have a process ready soon."""
        with self._lock:
            self._claims += 1
            self._waiting = self._waiting or self._start()

    def end(self) -> None:
        """Count one claim less, and end the process that waits where it was the last."""
        with self._lock:
            self._claims -= 1
            child = self._waiting
            if self._claims:
                self._waiting = child or self._start()
                return
            self._waiting = None
        if child is not None:
            child.discard()


class Claim:
    """A claim on a process of ``pool``, until that has loaded or there is nothing to load. Without a pool it does nothing."""

    def __init__(self, pool: Prewarmed | None) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._state = "new"

    def begin(self) -> None:
        """Get a process ready, once."""
        with self._lock:
            if self._pool is not None and self._state == "new":
                self._state = "begun"
                self._pool.begin()

    def end(self) -> None:
        """End the claim, for good."""
        with self._lock:
            begun, self._state = self._state == "begun", "ended"
            if self._pool is not None and begun:
                self._pool.end()


_prewarmed = {device: Prewarmed(partial(start_process, device)) for device in ("cuda", "cpu")}


def prewarmed(device: str) -> Prewarmed:
    """This process's pool of engine processes that have vLLM imported, for ``device`` "cuda" or "cpu"."""
    return _prewarmed[device]


@asynccontextmanager
async def warming(planned: PlannedModel, fleet: FleetSpec) -> AsyncIterator[Claim]:
    """Yield a claim on this process's one prewarmed engine process, ended with the block at the latest.

    It does nothing where the model runs distributed, or where GPUs differ: what vLLM learns of a GPU when it is imported has to
    hold for the one it gets.
    """
    wanted = planned.placement.engine == "lightweight" and (fleet.device == "cpu" or gpus_alike())
    claim = Claim(prewarmed(fleet.device) if wanted else None)
    try:
        yield claim
    finally:
        await asyncio.shield(asyncio.to_thread(claim.end))
