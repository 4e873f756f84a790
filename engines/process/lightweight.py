"""The lightweight engine: vLLM in a process of its own, on the devices of one placement. This side imports no vLLM."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from core.campaign import FleetSpec
from core.model.fleet import gpus_alike
from core.model.placement import PlannedModel
from engines.engine import EngineConfig
from engines.process.child import Child
from engines.process.engine import ProcessEngine, child_environment
from engines.process.prewarm import Claim, Prewarmed
from engines.session.cpu_platform import fork_environment

NAME, MODULE = "lightweight", "engines.process.lightweight_process"


class LightweightEngine(ProcessEngine):
    """vLLM on the devices of ``config``, gone with its process.

    Its process is one of `prewarmed` where one waits. It is killed at the end: an orderly one takes vLLM 5 s, and all answers
    are here.
    """

    def __init__(self, config: EngineConfig, slots: Sequence[int] = ()) -> None:
        super().__init__(
            NAME,
            MODULE,
            config,
            model=config.model,
            environment={},
            close_seconds=0,
            orderly_while_loading=False,
            slots=slots,
        )
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


_prewarmed = {device: Prewarmed(partial(start_process, device)) for device in ("cuda", "cpu")}


def prewarmed(device: str) -> Prewarmed:
    """This process's pool of engine processes that have vLLM imported, for ``device`` "cuda" or "cpu"."""
    return _prewarmed[device]


@asynccontextmanager
async def warming(planned: PlannedModel, fleet: FleetSpec) -> AsyncIterator[Claim]:
    """Give a claim on this process's one prewarmed engine process, ended with the block at the latest.

    It asks for none where the model runs distributed, or where GPUs differ: what vLLM learns of a GPU when it is imported has to
    hold for the one it gets.
    """
    wanted = planned.placement.engine == "lightweight" and (fleet.device == "cpu" or gpus_alike())
    claim = Claim(prewarmed(fleet.device) if wanted else None)
    try:
        yield claim
    finally:
        await asyncio.shield(asyncio.to_thread(claim.end))
