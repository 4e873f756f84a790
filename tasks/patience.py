"""Waiting for a results store that does not answer, without a thread for each who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from core.errors import StoreUnreachableError
from core.store.patience import Patience

T = TypeVar("T")


async def patiently(call: Callable[[], T], seconds: float) -> T:
    """Return what ``call()`` does in a thread, see `core.store.patience.patiently`."""
    patience = Patience(seconds)
    while True:
        try:
            return await asyncio.to_thread(call)
        except StoreUnreachableError as error:
            wait = patience.after(error)
        await asyncio.sleep(wait)
