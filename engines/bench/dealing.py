"""Requests of several runs, dealt in portions to several engines, and which of them to repeat alone after deaths of these.

Plain bookkeeping, for one thread at a time.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from core.errors import EngineDiedError
from core.model.sizing import weight
from core.request import Request, Response
from engines.control import Stop
from engines.session.order import key_of

# A request that was in flight at so many deaths, at so many of them alone, is what kills the engine.
POISON_DEATHS, ALONE = 3, 2
MOST_TOGETHER = 64  # suspects at once: as many as an engine still answers quickly, and 7 halvings to one
TOGETHER = 128  # weight; an engine makes one prefill of a prompt for up to 128 choices


@dataclass(eq=False)
class Taker:
    """An engine as dealing sees it: the weight (`core.model.sizing.weight`) and the portions that it has in flight."""

    load: int = field(default=0, init=False)
    portions: int = field(default=0, init=False)


class DealtRun:
    """A run whose requests are dealt: those that wait, in their order, and the way back to its caller.

    ``waiting`` is the weight of what may be dealt, ``left`` of all that is not answered; ``apart`` counts what waits for one engine
    alone. ``inbox`` has responses, portions that the caller is to have answered itself, and None at the end, after which the caller
    has to see ``error``.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.inbox: SimpleQueue[Response | Portion[Any] | None] = SimpleQueue()
        self.abort = Stop()
        self.error: Exception | None = None
        self.portions = self.apart = 0
        self.waiting = self.left = sum(map(weight, requests))
        self._requests = deque(requests)
        self._returns: Counter[str] = Counter()
        self._over = False

    @property
    def in_flight(self) -> int:
        """Weight of what is dealt and not answered."""
        return self.left - self.waiting

    @property
    def rank(self) -> int:
        """The next request's rank among those of other runs, lower ones first; see `engines.session.order.key_of`."""
        return key_of(self._requests[0])[0]

    def take(self, size: int) -> list[Request]:
        """Remove the next requests, of weight ``size``, and with the last one those of its whole prompt, up to `TOGETHER`."""
        if size >= self.waiting:
            portion, self.waiting = list(self._requests), 0
            self._requests.clear()
            return portion
        portion, taken = [], 0
        while self._requests and (
            taken < size or (taken < size + TOGETHER and key_of(self._requests[0]) == key_of(portion[-1]))
        ):
            portion.append(self._requests.popleft())
            taken += weight(portion[-1])
        self.waiting -= taken
        return portion

    def answer(self, request: Request, response: Response) -> None:
        """Hand the answer to a request that was taken to the caller."""
        self.left -= weight(request)
        self.inbox.put(response)

    def give_back(self, requests: Sequence[Request]) -> int:
        """Return requests that were taken to the front. Returns how often one of them has come back by now, at most."""
        self._requests.extendleft(reversed(requests))
        self.waiting += sum(map(weight, requests))
        self._returns.update(request.id for request in requests)
        return max((self._returns[request.id] for request in requests), default=0)

    def fail(self, error: Exception) -> None:
        """Raise ``error`` at the caller once what is in flight has ended."""
        self.error = self.error or error
        self.abort.set()
        self.settle()

    def settle(self) -> None:
        """End the run where nothing more can come."""
        if self._over or self.portions or ((self.waiting or self.apart) and not self.abort.is_set):
            return
        if self.left and not self.abort.is_set:
            self.error = EngineDiedError("requests were lost: are their ids unique?")
        self._over = True
        self.inbox.put(None)


T = TypeVar("T", bound=Taker)
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Portion(Generic[T]):
    """Requests of one run for one engine."""

    taker: T
    run: DealtRun
    requests: list[Request]

    @classmethod
    def given(cls, taker: T, run: DealtRun, requests: list[Request]) -> Portion[T]:
        """Return the portion, counted for both."""
        taker.load += sum(map(weight, requests))
        taker.portions += 1
        run.portions += 1
        return cls(taker, run, requests)

    def answered(self, request: Request) -> None:
        """Count one request as answered."""
        self.taker.load -= weight(request)
        self.run.left -= weight(request)

    def over(self, missing: Sequence[Request]) -> None:
        """Count the portion as ended, without an answer to those ``missing``."""
        self.taker.load -= sum(map(weight, missing))
        self.taker.portions -= 1
        self.run.portions -= 1


def deal(takers: Sequence[T], runs: Sequence[DealtRun], capacity: int | None) -> list[Portion[T]]:
    """Deal what waits to takers with room below ``capacity``, the least busy first; whole runs where it is None.

    Of concurrent runs, long generations go first, so that none of them is left to run alone at the end; equals share alike.
    """
    dealt: list[Portion[T]] = []
    alive = [run for run in runs if not run.abort.is_set]
    left = sum(run.left for run in alive)
    while takers and (waiting := [run for run in alive if run.waiting]):
        taker = min(takers, key=lambda each: each.load)
        size = portion_size(taker.load, left=left, takers=len(takers), capacity=capacity) if capacity else left
        if not size:
            break
        run = min(waiting, key=lambda each: (each.rank, each.in_flight))
        dealt.append(Portion.given(taker, run, run.take(size)))
    return dealt


def portion_size(load: int, *, left: int, takers: int, capacity: int) -> int:
    """Return the weight of the next portion of an engine with ``load`` in flight, 0 where it has enough; ``left`` is unanswered.

    Engines are kept full, for up to ``capacity`` they answer more at once in hardly more time; so all goes out as soon as it
    fits, evenly. Before that, an engine waits until its room is worth a portion. A portion is at most a quarter of what an engine
    has in flight, so that every engine gets parts of every stretch: neighbours are often alike, and long.
    """
    fair = math.ceil(left / takers)
    room = min(fair, capacity) - load
    least = 1 if fair <= capacity else capacity // 8
    return min(room, math.ceil(min(fair, capacity) / 4)) if room >= max(1, least) else 0


@dataclass(frozen=True)
class Isolation(Generic[K]):
    """The record of requests, by their keys: at how many ``deaths`` each was in flight, and at how many ``alone``.

    One death makes no suspect: engines die of other things. A request in flight at two is in ``suspects``, until answered or found
    guilty; half of them at a time are to be asked, and nothing beside them.
    """

    deaths: Mapping[K, int] = field(default_factory=dict)
    alone: Mapping[K, int] = field(default_factory=dict)
    suspects: tuple[K, ...] = ()

    @property
    def next_suspects(self) -> tuple[K, ...]:
        """The suspects to ask next, nothing beside them; empty where everything may be asked."""
        return self.suspects[: min(math.ceil(len(self.suspects) / 2), MOST_TOGETHER)]

    def after_death(self, in_flight: Iterable[K]) -> tuple[Isolation[K], K | None]:
        """Return the record after a death of the engine with ``in_flight``, and the request that is guilty of it, if any."""
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
        """Return the record once ``answered`` are."""
        if not self.suspects:
            return self
        return replace(self, suspects=tuple(key for key in self.suspects if key not in answered))
