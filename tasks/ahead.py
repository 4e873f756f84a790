"""Loading a model on a device on which the one before answers its last requests, and telling the next when to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from core.errors import SteelyardError
from core.monitor.tail import Tail
from core.plan import PlannedModel
from engines.berth import Berth
from engines.engine import Engine
from engines.loaded import Loaded
from engines.slots import Held
from tasks.say import say, warn

POLL_SECONDS = 0.1  # a lock that comes free tells nobody
LEAST_SECONDS = 5.0  # from when on an engine's end is near
LOADS = 1.5  # or so many times what its own load took


@asynccontextmanager
async def loaded_ahead(held: Held, build: Callable[[], Engine], model: str) -> AsyncIterator[Engine | None]:
    """Give an engine that was loaded while another worked on its device, once that has ended and the device is ours.

    None where the device was free, or where loading failed: there is more room for it then.
    """
    if not isinstance(held, Berth):
        yield None
        return
    engine = build()
    try:
        loaded: Engine | None = None
        try:
            info = await asyncio.to_thread(engine.open)
        except SteelyardError as error:
            await asyncio.to_thread(engine.close, keep=False)
            warn(f"{model}: could not be loaded ahead, and is loaded when its device is free: {error}")
        else:
            say(f"{model}: loaded ahead in {info.load_seconds:.0f} s")
            loaded = Loaded(engine, info)
        while not await asyncio.to_thread(held.take):
            await asyncio.sleep(POLL_SECONDS)
        yield loaded
    finally:
        await asyncio.shield(asyncio.to_thread(engine.close, keep=False))


def foretell_end(planned: PlannedModel, held: Held, load_seconds: float) -> Tail:
    """Return what tells whoever is next when to load beside an engine that took ``load_seconds`` itself, if it leaves room."""
    if not planned.placement.leaves_room:
        return Tail()
    return Tail(max(LEAST_SECONDS, LOADS * load_seconds), held.end_soon)
