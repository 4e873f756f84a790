"""Waiting for a results store that does not answer, as long as nobody cancels."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from core import patience

T = TypeVar("T")


async def patiently(call: Callable[[], T], seconds: float) -> T:
    """Return what ``call()`` does, see `core.patience.patiently`, in a thread. Cancelled, it tries no more."""
    ending = threading.Event()
    try:
        return await asyncio.to_thread(patience.patiently, call, seconds, ending.wait)
    finally:
        ending.set()
