"""The free GPUs of each node from now on, given what runs and what is reserved: where and when a job could start."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from core.planning.schedule.jobs import Node, Option, fits


@dataclass(frozen=True)
class TimeSlot:
    """A time and place: ``groups`` are (node, number of the option's groups on it)."""

    start: float
    option: Option
    groups: tuple[tuple[str, int], ...]

    @property
    def ends(self) -> float:
        """The time at which the GPUs are free again."""
        return self.start + self.option.seconds


class Profile:
    """Free GPUs of a fleet over time. ``busy`` lists, by node, when each GPU that is held comes free."""

    def __init__(self, now: float, nodes: Sequence[Node], busy: Mapping[str, Sequence[float]]) -> None:
        self.now = now
        self.idle = 0  # GPUs that are free now and not reserved from now
        self._frees: dict[str, _Free] = {}
        self._alike: dict[tuple[str, int, float, bool], list[_Free]] = {}  # nodes of one make
        for node in nodes:
            free = _Free(now, node, busy.get(node.name, ()))
            self._frees[node.name] = free
            self._alike.setdefault((node.kind, node.gpus, node.memory_gb, node.links), []).append(free)
            self.idle += free.counts[0]

    def best(self, options: Sequence[Option]) -> TimeSlot | None:
        """Return the slot in which a job would end first: of equal ends the option named first, on the node that it fills most.

        None where the fleet can never hold it.
        """
        found: TimeSlot | None = None
        for option in options:
            before = inf if found is None else found.ends - option.seconds
            if before > self.now:
                found = (self._one if option.stages == 1 else self._several)(option, before) or found
        return found

    def at_once(self, options: Sequence[Option]) -> TimeSlot | None:
        """Return a slot of the quickest option that can start now and delays nothing that is reserved."""
        for option in sorted(options, key=lambda option: option.seconds):
            width, ends = option.tensor_parallel, self.now + option.seconds
            frees = [free for free in self._holding(option) if free.counts[0] >= width]
            places = [(free, free.least(self.now, ends) // width) for free in frees]
            if slot := _gathered(option, self.now, places):
                return slot
        return None

    def take(self, slot: TimeSlot) -> None:
        """Reserve a slot."""
        for name, groups in slot.groups:
            gpus = groups * slot.option.tensor_parallel
            self._frees[name].take(slot.start, slot.ends, gpus)
            if slot.start == self.now:
                self.idle -= gpus

    def _holding(self, option: Option) -> Iterable[_Free]:
        for alike in self._alike.values():
            if fits(option, alike[0].node):
                yield from alike

    def _one(self, option: Option, before: float) -> TimeSlot | None:
        width, seconds, start, place, fullest = option.tensor_parallel, option.seconds, before, "", 0
        for free in self._holding(option):
            # A node where it starts no sooner is of use only if it fills that node better.
            found = free.earliest(width, seconds, start, or_at=bool(place))
            if found == inf:
                continue
            left = free.least(found, found + seconds)
            if not place or found < start or left < fullest:
                start, place, fullest = found, free.node.name, left
        return TimeSlot(start, option, ((place, 1),)) if place else None

    def _several(self, option: Option, before: float) -> TimeSlot | None:
        """Sweep over time, counting how many groups could start."""
        width, seconds, changes = option.tensor_parallel, option.seconds, []
        for free in self._holding(option):
            for groups in range(1, free.node.gpus // width + 1):
                for opens, closes in free.windows(groups * width, seconds):
                    changes.append((opens, 0, 1))
                    changes.append((closes, 1, -1))
        groups = 0
        for time, _, change in sorted(changes):
            groups += change
            if time >= before:
                return None
            if groups >= option.stages:
                places = [(free, free.least(time, time + seconds) // width) for free in self._holding(option)]
                return _gathered(option, time, places)
        return None


class _Free:
    """A step function of one node: ``counts[i]`` GPUs are free from ``times[i]`` to ``times[i + 1]``, the last for ever."""

    __slots__ = ("counts", "node", "times")

    def __init__(self, now: float, node: Node, busy: Sequence[float]) -> None:
        self.node = node
        self.times = [now]
        self.counts = [node.gpus - len(busy)]
        for ends in sorted(busy):
            if ends == self.times[-1]:
                self.counts[-1] += 1
            else:
                self.times.append(ends)
                self.counts.append(self.counts[-1] + 1)

    def earliest(self, gpus: int, seconds: float, before: float, *, or_at: bool) -> float:
        """Return the first time from which ``gpus`` are free for ``seconds``; infinity unless it is before ``before``, or at it."""
        times, counts, end = self.times, self.counts, len(self.times)
        index = 0
        while index < end and (times[index] < before or (or_at and times[index] == before)):
            if counts[index] < gpus:
                index += 1
                continue
            start, until = times[index], times[index] + seconds
            index += 1
            while index < end and times[index] < until and counts[index] >= gpus:
                index += 1
            if index == end or times[index] >= until:
                return start
        return inf

    def least(self, start: float, ends: float) -> int:
        """Return the fewest GPUs free at any time from ``start`` to ``ends``."""
        times = self.times
        index = bisect_left(times, start)
        if index == len(times) or times[index] > start:
            index -= 1
        return min(self.counts[index : max(index + 1, bisect_left(times, ends))])

    def windows(self, gpus: int, seconds: float) -> Iterable[tuple[float, float]]:
        """Yield the longest intervals of starts, both ends included, from which ``gpus`` are free for ``seconds``."""
        opened = None
        for time, count in zip(self.times, self.counts, strict=True):
            if count >= gpus:
                opened = time if opened is None else opened
            elif opened is not None:
                if time - opened >= seconds:
                    yield opened, time - seconds
                opened = None
        if opened is not None:
            yield opened, inf

    def take(self, start: float, ends: float, gpus: int) -> None:
        """Reserve ``gpus`` from ``start`` to ``ends``."""
        first, last = self._split(start), self._split(ends)
        for index in range(first, last):
            self.counts[index] -= gpus

    def _split(self, time: float) -> int:
        index = bisect_left(self.times, time)
        if index == len(self.times) or self.times[index] != time:
            self.times.insert(index, time)
            self.counts.insert(index, self.counts[index - 1])
        return index


def _gathered(option: Option, start: float, places: Sequence[tuple[_Free, int]]) -> TimeSlot | None:
    """Return a slot on few nodes: the one that holds all groups and is filled most, else those that hold most."""
    stages = option.stages
    whole = [(groups, index) for index, (_, groups) in enumerate(places) if groups >= stages]
    if whole:
        return TimeSlot(start, option, ((places[min(whole)[1]][0].node.name, stages),))
    if sum(groups for _, groups in places) < stages:
        return None
    chosen = []
    for free, groups in sorted(places, key=lambda place: -place[1]):
        if taken := min(groups, stages):
            chosen.append((free.node.name, taken))
            stages -= taken
    return TimeSlot(start, option, tuple(chosen))
