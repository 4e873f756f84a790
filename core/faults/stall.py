"""Noticing an engine that lives and does nothing."""

from __future__ import annotations

from collections.abc import Callable


class Stall:
    """Tells when there was work for ``seconds`` and no sign of progress. ``clock`` gives seconds, from wherever."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._since = clock()
        self._sign: object = None

    def over(self, sign: object, *, working: bool) -> bool:
        """Take note of a ``sign`` that changes with every progress, and say whether the time is over."""
        now = self._clock()
        if not working or sign != self._sign:
            self._since, self._sign = now, sign
        return now - self._since >= self.seconds
