"""Progress of one model on one benchmark, counted in docs, and its listeners."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.request import doc_of


@dataclass(frozen=True)
class Progress:
    """State of one cell. An earlier run answered ``resumed`` of the ``done`` docs; ``seconds`` and ``tokens`` are this run's."""

    model: str
    benchmark: str
    docs: int
    done: int
    resumed: int
    tokens: int  # prompt and completion tokens answered
    seconds: float
    ended: bool = False

    @property
    def share(self) -> float:
        """Docs done, 0 to 1."""
        return self.done / self.docs if self.docs else 1.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens answered by the seconds that took; 0 before the first."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimate from this run's pace; None before its first doc."""
        fresh = self.done - self.resumed
        return self.seconds * (self.docs - self.done) / fresh if fresh else None

    def __str__(self) -> str:
        left = self.seconds_left
        ahead = "" if left is None or self.ended else f", {format_seconds(left)} left"
        return f"{self.done}/{self.docs} docs, {self.tokens_per_second:,.0f} tokens/s{ahead}"


class DocCounter:
    """Counts docs whose requests are all answered. Request ids are ``<task>/<doc>/<request of the doc>/<repeat>``."""

    def __init__(self, requests: Iterable[str]) -> None:
        self._missing = Counter(map(doc_of, requests))
        self.docs = len(self._missing)
        self.done = 0

    def answer(self, request: str) -> None:
        """Count one answered request."""
        doc = doc_of(request)
        self._missing[doc] -= 1
        self.done += not self._missing[doc]


def format_seconds(seconds: float) -> str:
    """Return a duration in words: ``42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


_listeners: list[Callable[[Progress], None]] = []
_lock = threading.Lock()


@contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Call ``listener`` with all progress in this process, from several threads: it must not block."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)


def tell(progress: Progress) -> None:
    """Call every listener."""
    with _lock:
        listeners = list(_listeners)
    for listener in listeners:
        listener(progress)
