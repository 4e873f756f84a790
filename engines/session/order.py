"""The order in which a client's requests go to the engine: one stream, however many runs they come from. Pure.

Long generations go first, so that none of them is left to run alone at the end; scores fill the room they leave. Within
one length, and among scores, requests that begin alike are neighbours, so that the prefix cache still holds what they share.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

from core.request import Generate, Loglikelihood, LoglikelihoodRolling, Request, strings_of

SORTED_AT_ONCE = 1 << 15  # requests; sorting holds the interpreter's lock, 0.15 s for these behind one 3 kB header
PORTION_CHARACTERS = 1 << 21  # encoded, a character takes up to 20 bytes

Key = tuple[int, str]  # the rank, lower ones first, and the text in whose order requests of one rank go


def key_of(request: Request) -> Key:
    """Return the place of ``request`` in the stream. The continuations of one context have one key."""
    match request:
        case Generate(prompt=prompt, sampling=sampling):
            return -sampling.max_tokens, prompt
        case Loglikelihood(context=context):
            return 0, context
        case LoglikelihoodRolling(text=text):
            return 0, text


class RequestQueue:
    """The requests of one run in their order, which is found as they are removed. For one thread at a time."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._rest = _ordered(requests)
        self._head: list[tuple[Key, Request]] = []  # one at most

    def peek(self) -> Key | None:
        """Key of the next request; None where there is none."""
        self._head = self._head or list(islice(self._rest, 1))
        return self._head[0][0] if self._head else None

    def take(self) -> Request:
        """Remove the next request. Raises IndexError where there is none."""
        if self.peek() is None:
            raise IndexError("all requests of the run are taken")
        return self._head.pop()[1]


def _ordered(requests: Sequence[Request]) -> Iterator[tuple[Key, Request]]:
    """Yield all requests by rank; within one by text, `SORTED_AT_ONCE` in their own order at a time."""
    ranks: defaultdict[int, list[Request]] = defaultdict(list)
    for request in requests:
        ranks[key_of(request)[0]].append(request)
    for rank in sorted(ranks):
        alike = ranks.pop(rank)
        for begin in range(0, len(alike), SORTED_AT_ONCE):
            for request in sorted(alike[begin : begin + SORTED_AT_ONCE], key=lambda each: key_of(each)[1]):
                yield key_of(request), request


def take_next(queues: Sequence[RequestQueue], most: int) -> list[list[Request]]:
    """Remove the requests that go next from ``queues``, and return those of each queue, in their order.

    They are ``most``, or those within `PORTION_CHARACTERS` if fewer, but one at least; up to twice as many where that keeps
    the continuations of one context together.
    """
    taken: list[list[Request]] = [[] for _ in queues]
    heads = [(key, index) for index, queue in enumerate(queues) if (key := queue.peek()) is not None]
    heapq.heapify(heads)
    count = characters = 0
    last: Key | None = None
    while heads:
        key, index = heads[0]
        filled = max(count / most, characters / PORTION_CHARACTERS)
        if filled >= 2 or (filled >= 1 and key != last):
            break
        request = queues[index].take()
        taken[index].append(request)
        count += 1
        characters += sum(map(len, strings_of(request)))
        last = key
        if (following := queues[index].peek()) is None:
            heapq.heappop(heads)
        else:
            heapq.heapreplace(heads, (following, index))
    return taken
