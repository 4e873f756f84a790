"""The order in which a client's requests go to the engine: one stream, however many runs they come from. Pure.

Long generations go first, so that none of them is left to run alone at the end; scores fill the room they leave. Within
one length, and among scores, requests that begin alike are neighbours, so that the prefix cache still holds what they share.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence

from core.request import Generate, Loglikelihood, LoglikelihoodRolling, Request, strings_of

SORTED_AT_ONCE = 1 << 15  # requests; sorting holds the interpreter's lock, 0.15 s for these behind one 3 kB header
PORTION_CHARACTERS = 1 << 21  # encoded, a character takes up to 20 bytes

Key = tuple[int, str]  # the rank, lower ones first, and the text in whose order requests of one rank go


def key_of(request: Request) -> Key:
    """Where ``request`` goes in the stream. The continuations of one context have one key."""
    match request:
        case Generate(prompt=prompt, sampling=sampling):
            return -sampling.max_tokens, prompt
        case Loglikelihood(context=context):
            return 0, context
        case LoglikelihoodRolling(text=text):
            return 0, text


class RequestQueue:
    """The requests of one run in their order, which is found as they are taken. Of one thread at a time."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._rest = _ordered(requests)
        self._head: tuple[Key, Request] | None = None
        self._begun = False

    def peek(self) -> Key | None:
        """Key of the next request; None where there is none."""
        if not self._begun:
            self._begun = True
            self._head = next(self._rest, None)
        return None if self._head is None else self._head[0]

    def take(self) -> Request:
        """Take the next request. Raises IndexError where there is none."""
        self.peek()
        if self._head is None:
            raise IndexError("all requests of the run are taken")
        _, request = self._head
        self._head = next(self._rest, None)
        return request


def _ordered(requests: Sequence[Request]) -> Iterator[tuple[Key, Request]]:
    """All requests by rank; within one by text, `SORTED_AT_ONCE` in their own order at a time."""
    ranks: defaultdict[int, list[Request]] = defaultdict(list)
    for request in requests:
        ranks[key_of(request)[0]].append(request)
    for rank in sorted(ranks):
        alike = ranks.pop(rank)
        for begin in range(0, len(alike), SORTED_AT_ONCE):
            for request in sorted(alike[begin : begin + SORTED_AT_ONCE], key=lambda each: key_of(each)[1]):
                yield key_of(request), request


def portion(lines: Sequence[RequestQueue], most: int) -> list[list[Request]]:
    """Take the requests that go next from ``lines``: for each line its own, in their order.

    They are ``most``, or those within `PORTION_CHARACTERS` if fewer, but one at least; up to twice as many where that keeps
    the continuations of one context together.
    """
    taken: list[list[Request]] = [[] for _ in lines]
    heads = [(key, index) for index, line in enumerate(lines) if (key := line.peek()) is not None]
    heapq.heapify(heads)
    count = characters = 0
    last: Key | None = None
    while heads:
        key, index = heads[0]
        filled = max(count / most, characters / PORTION_CHARACTERS)
        if filled >= 2 or (filled >= 1 and key != last):
            break
        request = lines[index].take()
        taken[index].append(request)
        count += 1
        characters += sum(map(len, strings_of(request)))
        last = key
        if (following := lines[index].peek()) is None:
            heapq.heappop(heads)
        else:
            heapq.heapreplace(heads, (following, index))
    return taken
