"""When an engine will have answered everything, foretold from how it goes so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

NEVER = -1.0


class Tail:
    """Calls ``near``, once, when everything will be answered within ``seconds``. Any thread may call its methods.

    Nothing is foretold while benchmarks are `awaited`: nobody knows yet what they ask.
    """

    def __init__(
        self,
        seconds: float = NEVER,
        near: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds, self._near, self._clock = seconds, near, clock
        self._lock = threading.Lock()
        self._awaited = self._requests = self._answers = 0
        self._since: float | None = None
        self._told = False

    def awaited(self, benchmarks: int) -> None:
        """Count so many benchmarks more that are to begin; below 0 those that will not."""
        with self._lock:
            self._awaited += benchmarks

    def begun(self, requests: int) -> None:
        """Count one of the awaited benchmarks as begun, with all the requests that it may ask."""
        with self._lock:
            self._awaited -= 1
            self._requests += requests
            if self._since is None and requests:
                self._since = self._clock()

    def answered(self) -> None:
        """Count one request as answered."""
        with self._lock:
            self._answers += 1
            if self._told or self._awaited > 0 or self._since is None:
                return
            left = (self._requests - self._answers) * (self._clock() - self._since) / self._answers
            if left > self._seconds:
                return
            self._told = True
        self._near()
