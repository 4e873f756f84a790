"""Requests of several runs, dealt out in portions to several engines. Plain bookkeeping, for one thread at a time."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from core.errors import EngineDiedError
from core.model.sizing import weight
from core.request import Request, Response
from engines.control import Stop
from engines.session.order import key_of

TOGETHER = 128  # weight; an engine makes one prefill of a prompt for up to 128 choices


@dataclass(eq=False)
class Taker:
    """An engine as who deals sees it: the weight (`core.model.sizing.weight`) and the portions that it has in flight."""

    load: int = field(default=0, init=False)
    portions: int = field(default=0, init=False)


class Run:
    """One run: its requests that nobody answers yet, in their order, and the way back to its caller.

    ``waiting`` is the weight of what may be dealt, ``left`` of all that is not answered; ``apart`` counts what waits for one engine
    alone. ``inbox`` gives responses, portions that the caller is to have answered itself, and None at the end; after that ``error``
    is what the caller has to see.
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
        """Where the next request goes among those of other runs, lower ones first; see `engines.session.order.key_of`."""
        return key_of(self._requests[0])[0]

    def take(self, size: int) -> list[Request]:
        """Take the next requests, of weight ``size``, and with the last one what shares its whole prompt, up to `TOGETHER`."""
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
        """Hand the answer to one of those taken on."""
        self.left -= weight(request)
        self.inbox.put(response)

    def give_back(self, requests: Sequence[Request]) -> int:
        """Put requests that were taken in front again. Returns how often the unluckiest of them has come back by now."""
        self._requests.extendleft(reversed(requests))
        self.waiting += sum(map(weight, requests))
        self._returns.update(request.id for request in requests)
        return max((self._returns[request.id] for request in requests), default=0)

    def fail(self, error: Exception) -> None:
        """Have the caller see ``error`` once what is in flight has ended."""
        self.error = self.error or error
        self.abort.set()
        self.settle()

    def settle(self) -> None:
        """End it, where nothing more can come."""
        if self._over or self.portions or ((self.waiting or self.apart) and not self.abort.is_set):
            return
        if self.left and not self.abort.is_set:
            self.error = EngineDiedError("requests were lost: are their ids unique?")
        self._over = True
        self.inbox.put(None)


T = TypeVar("T", bound=Taker)


@dataclass(frozen=True)
class Portion(Generic[T]):
    """Requests of one run for one engine."""

    taker: T
    run: Run
    requests: list[Request]

    @classmethod
    def given(cls, taker: T, run: Run, requests: list[Request]) -> Portion[T]:
        """Return the portion, counted for both."""
        taker.load += sum(map(weight, requests))
        taker.portions += 1
        run.portions += 1
        return cls(taker, run, requests)

    def answered(self, request: Request) -> None:
        """Count one of them as answered."""
        self.taker.load -= weight(request)
        self.run.left -= weight(request)

    def over(self, missing: Sequence[Request]) -> None:
        """Count it as ended, without an answer to those ``missing``."""
        self.taker.load -= sum(map(weight, missing))
        self.taker.portions -= 1
        self.run.portions -= 1


def deal(takers: Sequence[T], runs: Sequence[Run], capacity: int | None) -> list[Portion[T]]:
    """Deal what waits to whoever has room below ``capacity``, the least busy first; whole runs where it is None.

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
    """Weight of the next portion of an engine with ``load`` in flight, where ``left`` is not answered yet; 0 where it has enough.

    Engines are kept full, for up to ``capacity`` they answer more at once in hardly more time; so all goes out as soon as it
    fits, evenly. Before that, an engine waits until its room is worth a portion. A portion is at most a quarter of what an engine
    has in flight, so that every engine gets parts of every stretch: what lies side by side is often alike, and long.
    """
    fair = math.ceil(left / takers)
    room = min(fair, capacity) - load
    least = 1 if fair <= capacity else capacity // 8
    return min(room, math.ceil(min(fair, capacity) / 4)) if room >= max(1, least) else 0
