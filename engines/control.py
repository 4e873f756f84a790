"""The control that people have over a model while it is evaluated: to pause, to go on, to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.errors import SteelyardError

CANCELLED = "cancelled; what is answered is stored, the next run goes on from there"


class CancelledByUserError(SteelyardError):
    """The run was told to end; what it had answered is stored."""


class Control:
    """One model's switch, for any thread to turn; threads that feed the engine go by it."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._state = "running"  # | "paused" | "cancelled", which is final
        self._stops: set[Stop] = set()

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._state == "cancelled"

    def pause(self) -> None:
        """Feed the engine no more; what is in flight is given up and asked again later."""
        self._turn("paused")

    def resume(self) -> None:
        """Go on."""
        self._turn("running")

    def cancel(self) -> None:
        """Stop for good."""
        self._turn("cancelled")

    @contextmanager
    def stops(self, stop: Stop) -> Iterator[None]:
        """Set ``stop`` when the switch is turned off within the block, or is off already."""
        with self._change:
            self._stops.add(stop)
            off = self._state != "running"
        try:
            if off:
                stop.set()
            yield
        finally:
            with self._change:
                self._stops.discard(stop)

    def wait(self) -> None:
        """Block while paused. Raises `CancelledByUserError` once cancelled."""
        with self._change:
            self._change.wait_for(lambda: self._state != "paused")
            if self._state == "cancelled":
                raise CancelledByUserError(CANCELLED)

    def rest(self, seconds: float) -> bool:
        """Wait ``seconds``, or until cancelled. Returns whether it is."""
        with self._change:
            return self._change.wait_for(lambda: self._state == "cancelled", seconds)

    def _turn(self, state: str) -> None:
        with self._change:
            if state == self._state or self._state == "cancelled":
                return
            self._state = state
            stops = list(self._stops) if state != "running" else []
            self._change.notify_all()
        for stop in stops:
            stop.set()


class Stop:
    """A flag that is set once and calls its listeners, in the thread that sets it."""

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
        """Call ``listener`` when the flag is set within the block; at once where it is set already."""
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
