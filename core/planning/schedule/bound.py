"""A lower bound of the makespan: no schedule on the fleet, however clever, ends sooner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.planning.schedule.jobs import Node, Option, ScheduledJob, runnable

TOLERANCE = 0.002  # of the bound is given away rather than searched for
Shares = np.ndarray


@dataclass(frozen=True)
class LowerBound:
    """Seconds that no schedule can beat, and which argument says so: "longest job", "area" or "packing"."""

    seconds: float
    reason: str


def lower_bound(nodes: Sequence[Node], jobs: Sequence[ScheduledJob]) -> LowerBound:
    """Bound the makespan of jobs that are all there at the start.

    A makespan T is refuted where the jobs, cut into fractions over their options that last no longer than T, do not fit into
    fleet × T; sizes and seconds count as they are, and as dual-feasible functions of them (Fekete and Schepers, "A general
    framework for bounds for higher-dimensional orthogonal packing problems", 2004): of jobs longer than T/2 no two fit
    one after the other, of gangs larger than half a node no two fit beside each other, and so on. The bound is the largest T
    that is refuted. Raises `ValueError` where a job fits nowhere.
    """
    if not jobs:
        return LowerBound(0.0, "longest job")
    for job in jobs:
        if not runnable(job, nodes):
            raise ValueError(f"job {job.key!r} fits nowhere in the fleet")
    problem = _Problem(nodes, jobs)
    longest = max(min(option.seconds for option in options) for options in problem.options)
    area = problem.area()
    low = max(longest, area)
    if not problem.refutes(low * (1 + TOLERANCE)):
        return LowerBound(low, "longest job" if longest > area else "area")
    high = 2 * low
    while problem.refutes(high):
        low, high = high, 2 * high
    while high > low * (1 + TOLERANCE):
        middle = (low * high) ** 0.5
        if problem.refutes(middle):
            low = middle
        else:
            high = middle
    return LowerBound(low, "packing")


class _Problem:
    """Jobs × options as arrays, and the linear programme over them."""

    def __init__(self, nodes: Sequence[Node], jobs: Sequence[ScheduledJob]) -> None:
        self.options: list[list[Option]] = []
        self._kinds = sorted({node.kind for node in nodes})
        self._capacity = {kind: sum(node.gpus for node in nodes if node.kind == kind) for kind in self._kinds}
        self._node = {kind: {node.gpus for node in nodes if node.kind == kind} for kind in self._kinds}
        for job in jobs:
            self.options.append([o for o in job.options if runnable(ScheduledJob(job.key, (o,)), nodes)])
        flat = [(index, option) for index, options in enumerate(self.options) for option in options]
        self._job = np.array([index for index, _ in flat])
        self._kind = np.array([self._kinds.index(option.kind) for _, option in flat])
        self._seconds = np.array([option.seconds for _, option in flat])
        self._width = np.array([float(option.tensor_parallel) for _, option in flat])
        self._stages = np.array([float(option.stages) for _, option in flat])

    def area(self) -> float:
        """Return the seconds that the work takes at best if it were spread evenly over all GPUs."""
        return self._load(np.ones(self._seconds.size, bool), 1.0, packed=False)

    def refutes(self, makespan: float) -> bool:
        """Return whether no schedule can end by then."""
        most = makespan * (1 + 1e-9)
        usable = self._seconds <= most
        return self._in_line(usable) > most or self._load(usable, makespan, packed=True) > 1 + 1e-9

    def _in_line(self, usable: np.ndarray) -> float:
        """Return the most seconds of jobs of which no two can run at once: gangs of one kind, and one job with no room beside."""
        most = 0.0
        for kind, name in enumerate(self._kinds):
            elsewhere = np.bincount(self._job[usable & (self._kind != kind)], minlength=len(self.options)) > 0
            mine = np.flatnonzero(usable & (self._kind == kind) & ~elsewhere[self._job])
            gpus, seconds = np.full(len(self.options), np.inf), np.full(len(self.options), np.inf)
            np.minimum.at(gpus, self._job[mine], self._width[mine] * self._stages[mine])
            np.minimum.at(seconds, self._job[mine], self._seconds[mine])
            bound_here = np.isfinite(gpus)
            gpus, seconds, capacity = gpus[bound_here], seconds[bound_here], self._capacity[name]
            for width in np.unique(gpus[gpus <= capacity / 2]):
                beside = seconds[gpus == width].max()
                most = max(most, float(beside + seconds[gpus > capacity - width].sum()))
        return most

    def _load(self, usable: np.ndarray, makespan: float, *, packed: bool) -> float:
        """Return the largest share of fleet × makespan that jobs need; ``packed`` counts by dual-feasible functions, too."""
        rows: list[tuple[np.ndarray, np.ndarray]] = []
        for kind, name in enumerate(self._kinds):
            mine = np.flatnonzero((self._kind == kind) & usable)
            if not mine.size:
                continue
            seconds, capacity = self._seconds[mine] / makespan, self._capacity[name]
            gpus = self._width[mine] * self._stages[mine]
            sizes = [gpus / capacity]
            times = [seconds]
            if packed:
                sizes += _counted(gpus / capacity)
                if len(self._node[name]) == 1:
                    node = next(iter(self._node[name]))
                    parts = self._stages[mine] * node / capacity
                    sizes += [parts * size for size in _counted(self._width[mine] / node)]
                times += _counted(seconds, steady=True)
            products = [size * time for size in sizes for time in times]
            rows += [(mine, row) for row in {row.tobytes(): row for row in products if row.any()}.values()]
        return self._solve(usable, rows)

    def _solve(self, usable: np.ndarray, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
        """Return the least value of the largest row, each job's options adding up to one."""
        if np.bincount(self._job[usable], minlength=len(self.options)).max() == 1:
            return max((float(row.sum()) for _, row in rows), default=0.0)
        from scipy.optimize import linprog

        columns = np.flatnonzero(usable)
        position = np.full(usable.size, -1)
        position[columns] = np.arange(columns.size)
        left, whole = (np.zeros((count, columns.size + 1)) for count in (len(rows), len(self.options)))
        left[:, -1] = -1.0
        for place, (mine, row) in enumerate(rows):
            left[place, position[mine]] = row
        whole[self._job[columns], np.arange(columns.size)] = 1.0
        cost = np.zeros(columns.size + 1)
        cost[-1] = 1.0
        found = linprog(cost, left, np.zeros(len(left)), whole, np.ones(len(whole)), method="highs")
        if found.status != 0:
            raise ArithmeticError(f"the bound's linear programme was not solved: {found.message}")
        return float(found.fun)


def _counted(shares: Shares, *, steady: bool = False) -> list[Shares]:
    """Dual-feasible functions of sizes as shares of the whole.

    u(k): what is more than a k+1-th counts as so many k-ths. U(e): less than e counts nothing, more than 1 - e everything.
    """
    edges = (1 / 2, 1 / 3, 1 / 4, 1 / 6) if steady else sorted({float(1 - x) for x in shares if 0.5 < x < 1})[:4]
    return [*(_stepped(shares, k) for k in (1, 2, 3)), *(_edged(shares, edge) for edge in edges)]


def _stepped(shares: Shares, k: int) -> Shares:
    scaled = (k + 1) * shares
    whole = np.abs(scaled - np.round(scaled)) < 1e-9
    return np.where(whole, shares, np.floor(scaled) / k)


def _edged(shares: Shares, edge: float) -> Shares:
    return np.where(shares > 1 - edge + 1e-9, 1.0, np.where(shares < edge - 1e-9, 0.0, shares))
