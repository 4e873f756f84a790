"""When enough docs are answered: intervals that hold after every number of docs at once, so that one may look early. Pure.

The intervals are empirical-Bernstein confidence sequences for sampling without replacement (Waudby-Smith and Ramdas, "Confidence
sequences for sampling without replacement", NeurIPS 2020; weights as in their "Estimating means of bounded random variables by
betting", JRSS-B 2024, section 3.2). They are about the score that all docs would give. Docs must come in random order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

ALPHA = 0.05
FEWEST = 30  # docs before anything is decided: what people will not believe from fewer
MOST_WEIGHT = 0.75  # of one doc; below 1, or a single doc could decide


@dataclass(frozen=True)
class Interval:
    """Where the mean over all docs lies after each number of docs: ``low[t]`` to ``high[t]`` after ``t + 1``."""

    low: np.ndarray
    high: np.ndarray


def confidence_sequence(
    values: Sequence[float] | np.ndarray, docs: int, *, alpha: float = ALPHA, least: float = 0.0, most: float = 1.0
) -> Interval:
    """Bound the mean of ``docs`` values by the first of them, in random order, each within [``least``, ``most``].

    With probability 1 - ``alpha`` the mean is in all of the intervals at once. Each is within the one before it; with all docs
    known it is the mean. Raises `ValueError` for values out of range or more of them than docs.
    """
    scaled = (np.asarray(values, float) - least) / (most - least)
    count = scaled.size
    if count > docs:
        raise ValueError(f"{count} values of {docs} docs")
    if not count:
        return Interval(np.zeros(0), np.zeros(0))
    if scaled.min() < 0 or scaled.max() > 1:
        raise ValueError(f"values from {least:g} to {most:g} are expected, not {min(values):g} to {max(values):g}")
    number = np.arange(1, count + 1)
    # Mean and variance as they were known before each doc, with half a made-up doc of each end.
    means = (0.5 + np.cumsum(scaled)) / (number + 1)
    before = np.concatenate([[0.5], means[:-1]])
    variances = (0.25 + np.cumsum((scaled - means) ** 2)) / (number + 1)
    known = np.concatenate([[0.25], variances[:-1]])
    weight = np.minimum(MOST_WEIGHT, np.sqrt(2 * math.log(2 / alpha) / (known * number * np.log(1 + number))))
    cost = np.cumsum((scaled - before) ** 2 * (-np.log1p(-weight) - weight))
    # After s have been seen the mean of those to come follows from the whole mean: (docs · mean − s) / (docs − seen).
    seen = np.concatenate([[0.0], np.cumsum(scaled)[:-1]])
    rest = docs - number + 1
    scale = np.cumsum(weight * docs / rest)
    centre = np.cumsum(weight * (scaled + seen / rest)) / scale
    half = (math.log(2 / alpha) + cost) / scale
    # What is sure in any case: the docs to come count between nothing and everything.
    total = np.cumsum(scaled)
    low = np.maximum(centre - half, total / docs)
    high = np.minimum(centre + half, (total + docs - number) / docs)
    width = most - least
    return Interval(least + width * np.maximum.accumulate(low), least + width * np.minimum.accumulate(high))


@dataclass(frozen=True)
class Verdict:
    """Whether a ranking is settled: ``after`` how many docs, None where it is not yet; ``order`` best first, where it is."""

    after: int | None
    order: tuple[str, ...]
    docs: int

    @property
    def saved(self) -> float:
        """Share of the docs that need not be answered."""
        return 0.0 if self.after is None else 1 - self.after / self.docs


def ranking(
    values: Mapping[str, Sequence[float] | np.ndarray],
    docs: int,
    *,
    top: int | None = None,
    margin: float = 0.0,
    alpha: float = ALPHA,
    least: float = 0.0,
    most: float = 1.0,
) -> Verdict:
    """Say after how many docs the order of models is settled, by values on the same docs in the same random order.

    With ``top`` it is enough to know which models are the best so many; two whose scores over all docs differ by ``margin`` or
    less may stand either way. Pairs are compared doc by doc, which says more than two scores. With probability 1 - ``alpha``,
    whenever one looks, the order is that of the scores over all docs: the pairs share ``alpha`` (Bonferroni). Raises
    `ValueError` for values out of range or models with unlike numbers of them.
    """
    names = list(values)
    counts = {len(each) for each in values.values()}
    if len(counts) > 1:
        raise ValueError(f"models have values of {min(counts)} to {max(counts)} docs: give those of the same docs")
    answered = counts.pop() if counts else 0
    pairs = list(combinations(names, 2))
    spread = most - least
    wins: dict[tuple[str, str], np.ndarray] = {}
    near: dict[tuple[str, str], np.ndarray] = {}
    for one, other in pairs:
        difference = np.asarray(values[one], float) - np.asarray(values[other], float)
        known = confidence_sequence(difference, docs, alpha=alpha / len(pairs), least=-spread, most=spread)
        wins[one, other], wins[other, one] = known.low > 0, known.high < 0
        near[one, other] = (known.low >= -margin) & (known.high <= margin)
    for after in range(min(FEWEST, docs), answered + 1):
        beaten = {name: sum(bool(wins[other, name][after - 1]) for other in names if other != name) for name in names}
        score = {name: float(np.mean(values[name][:after])) for name in names}
        order = sorted(names, key=lambda name: (beaten[name], -score[name], name))
        if _settled(order, wins, near, after - 1, top):
            return Verdict(after, tuple(order), docs)
    return Verdict(None, (), docs)


def _settled(
    order: Sequence[str],
    wins: Mapping[tuple[str, str], np.ndarray],
    near: Mapping[tuple[str, str], np.ndarray],
    index: int,
    top: int | None,
) -> bool:
    """Whether every pair whose order was asked for is told apart, or within the margin."""
    for place, better in enumerate(order):
        for worse in order[place + 1 :]:
            if top is not None and (place >= top or order.index(worse) < top):
                continue  # both in or both out
            pair = (better, worse) if (better, worse) in near else (worse, better)
            if not (wins[better, worse][index] or near[pair][index]):
                return False
    return True
