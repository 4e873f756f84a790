"""One engine process that is ready before its devices are: started, its libraries imported, and waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable

from engines.process.child import Child


class Prewarmed:
    """Keeps at most one process waiting, as long as somebody may need one. Safe to use from several threads.

    ``start`` starts one. When one is taken while others wish for one, the next is started.
    """

    def __init__(self, start: Callable[[], Child]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._claims = 0
        self._waiting: Child | None = None

    def take(self) -> Child:
        """Return the process that waits, or a new one. It is the caller's to end."""
        with self._lock:
            child = self._waiting or self._start()
            if child.exited.is_set():  # the kernel may have chosen it to free memory
                child.discard()
                child = self._start()
            others = self._claims - 1  # whoever takes it has a claim too
            self._waiting = self._start() if others > 0 else None
            return child

    def begin(self) -> None:
        """Count one more who will need a process, and have one ready soon."""
        with self._lock:
            self._claims += 1
            self._waiting = self._waiting or self._start()

    def end(self) -> None:
        """Count one less. What waits for nobody is ended; else one is made to wait."""
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
    """Somebody's wish for a process of ``pool``, until it has loaded or there is nothing to load. Without a pool it is none."""

    def __init__(self, pool: Prewarmed | None) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._state = "new"

    def begin(self) -> None:
        """Have a process ready soon, unless that was asked before or is over."""
        with self._lock:
            if self._pool is not None and self._state == "new":
                self._state = "begun"
                self._pool.begin()

    def end(self) -> None:
        """Give the wish up, for good."""
        with self._lock:
            begun, self._state = self._state == "begun", "ended"
            if self._pool is not None and begun:
                self._pool.end()
