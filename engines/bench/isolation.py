"""What is concluded of an engine that fails: which requests to repeat, beside which others; whether one that lives does nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# A request that was in flight at so many deaths, at so many of them alone, is what kills the engine.
POISON_DEATHS, ALONE = 3, 2
MOST_TOGETHER = 64  # suspects at once: as many as an engine still answers quickly, and 7 halvings to one


@dataclass(frozen=True)
class Isolation(Generic[K]):
    """What is known of requests, by their keys: at how many ``deaths`` each was in flight, and at how many ``alone``.

    One death makes nobody a suspect: engines die of other things. Who was in flight at two is in ``suspects``, until answered or
    found guilty; half of them at a time are to be asked, and nothing beside them.
    """

    deaths: Mapping[K, int] = field(default_factory=dict)
    alone: Mapping[K, int] = field(default_factory=dict)
    suspects: tuple[K, ...] = ()

    @property
    def portion(self) -> tuple[K, ...]:
        """The suspects to ask next, nothing beside them; empty where everything may be asked."""
        return self.suspects[: min(math.ceil(len(self.suspects) / 2), MOST_TOGETHER)]

    def after_death(self, in_flight: Iterable[K]) -> tuple[Isolation[K], K | None]:
        """Return what is known once the engine has died with ``in_flight``, and the request that is guilty of it, if any is."""
        asked = tuple(in_flight)
        deaths = dict(self.deaths)
        for key in asked:
            deaths[key] = deaths.get(key, 0) + 1
        alone = dict(self.alone)
        if len(asked) == 1:
            alone[asked[0]] = alone.get(asked[0], 0) + 1
            if alone[asked[0]] >= ALONE and deaths[asked[0]] >= POISON_DEATHS:
                return Isolation(deaths, alone), asked[0]
        return Isolation(deaths, alone, tuple(key for key in asked if deaths[key] > 1)), None

    def without(self, answered: Collection[K]) -> Isolation[K]:
        """Return what is known once ``answered`` are."""
        if not self.suspects:
            return self
        return replace(self, suspects=tuple(key for key in self.suspects if key not in answered))


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
