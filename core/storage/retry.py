"""Retries while a results store does not answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
)

from core.errors import StoreUnreachableError

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds
WAITS = wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)  # doubling

T = TypeVar("T")
log = logging.getLogger("steelyard.results")


def patiently(call: Callable[[], T], seconds: float, rest: Callable[[float], bool]) -> T:
    """Return ``call()``, tried again while the store does not answer, for ``seconds`` at most.

    ``rest`` waits the seconds it is given, or less, and says whether to give up. Raises `core.errors.StoreUnreachableError`
    where the store stayed away, and at once whatever else ``call`` raises.
    """
    too_late = stop_after_delay(seconds)
    retrying = Retrying(
        **_policy(seconds), stop=lambda state: too_late(state) or rest(state.upcoming_sleep), sleep=lambda _: None
    )
    return retrying(call)


async def patiently_in_thread(call: Callable[[], T], seconds: float) -> T:
    """Return what ``call()`` returns in a thread, retried as by `patiently`; no thread is kept while it waits."""
    return await AsyncRetrying(**_policy(seconds), stop=stop_after_delay(seconds))(asyncio.to_thread, call)


def _policy(seconds: float) -> dict[str, Any]:
    def left(state: RetryCallState) -> float:
        return seconds - (state.seconds_since_start or 0.0)

    def announce(state: RetryCallState) -> None:
        if state.attempt_number == 1 and left(state) > 0 and state.outcome:
            log.warning("the results store is waited for, %.0f s at most: %s", left(state), state.outcome.exception())

    return {
        "retry": retry_if_exception_type(StoreUnreachableError),
        "wait": lambda state: min(WAITS(state), left(state)),
        "after": announce,
        "reraise": True,
    }
