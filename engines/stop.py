"""Ending a run early, from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stop:
    """A flag that is set once and calls whoever listens, in the thread that sets it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._listeners: list[Callable[[], None]] = []

    @property
    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._set

    def set(self) -> None:
        """Set the flag. Listeners must not block."""
        with self._lock:
            listeners = [] if self._set else list(self._listeners)
            self._set = True
        for listener in listeners:
            listener()

    @contextmanager
    def heard_by(self, listener: Callable[[], None]) -> Iterator[None]:
        """Have ``listener`` called when the flag is set within the block; at once where it is set already."""
        with self._lock:
            late = self._set
            self._listeners.append(listener)
        try:
            if late:
                listener()
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)
