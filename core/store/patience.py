"""Waiting for a results store that does not answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from core.errors import StoreUnreachableError

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds

T = TypeVar("T")
log = logging.getLogger("steelyard.results")


def next_wait(wait: float | None) -> float:
    """Return how many seconds to wait after a try that failed; ``wait`` is what was waited before it, None for the first."""
    return FIRST_WAIT if wait is None else min(2 * wait, LONGEST_WAIT)


class Patience:
    """How much longer a call to the store is tried again, of ``seconds`` from now on."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._wait: float | None = None

    def after(self, error: StoreUnreachableError) -> float:
        """Return the seconds to wait before the next try. Raises ``error`` where that was the last one."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise error
        if self._wait is None:
            log.warning("the results store is waited for, %.0f s at most: %s", left, error)
        self._wait = next_wait(self._wait)
        return min(self._wait, left)


def patiently(call: Callable[[], T], seconds: float, rest: Callable[[float], bool]) -> T:
    """Return ``call()``, tried again while the store does not answer, for ``seconds`` at most.

    ``rest`` waits the seconds it is given, or less, and says whether to give up. Raises `core.errors.StoreUnreachableError`
    where the store stayed away, and at once whatever else ``call`` raises.
    """
    patience = Patience(seconds)
    while True:
        try:
            return call()
        except StoreUnreachableError as error:
            if rest(patience.after(error)):
                raise
