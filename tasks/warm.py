"""An engine process that has vLLM imported before the model's devices are held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.campaign import FleetSpec
from core.fleet import gpus_alike
from core.plan import PlannedModel
from engines.lightweight import prewarmed
from engines.prewarm import Claim


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
