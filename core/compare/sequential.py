"""When enough docs are answered: intervals that hold after every number of docs at once, so that one may look early. Pure.

The intervals are empirical-Bernstein confidence sequences for sampling without replacement (Waudby-Smith and Ramdas, "Confidence
sequences for sampling without replacement", NeurIPS 2020; weights as in their "Estimating means of bounded random variables by
betting", JRSS-B 2024, section 3.2). They are about the score that all docs would give. Docs must come in random order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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
class Standing:
    """How a model stands to another: ``verdict``, and bounds of its score less the other's over all docs.

    ``docs`` were answered by both.
    """

    against: str
    verdict: Literal["above", "below", "alike", "open"]
    docs: int
    low: float
    high: float

    def __str__(self) -> str:
        words = {"alike": "as good as", "open": "not told apart from"}
        return f"{words.get(self.verdict, self.verdict)} {self.against} ({self.low:+.3f} to {self.high:+.3f})"


def standing(
    against: str,
    own: Mapping[str, float],
    other: Mapping[str, float],
    order: Sequence[str],
    *,
    margin: float = 0.0,
    alpha: float = ALPHA,
) -> Standing:
    """Tell a model from another by their values between 0 and 1, by doc; ``order`` has all docs in the random order of asking.

    Docs are compared one by one, which says more than two scores. With probability 1 - ``alpha`` the verdict is that of all docs,
    however often one looks. Two whose scores differ by ``margin`` or less are alike. Raises `ValueError` for other values.
    """
    both = [doc for doc in order if doc in own and doc in other]
    differences = [own[doc] - other[doc] for doc in both]
    known = confidence_sequence(differences, len(order), alpha=alpha, least=-1.0, most=1.0)
    low, high = (float(known.low[-1]), float(known.high[-1])) if both else (-1.0, 1.0)
    verdict: Literal["above", "below", "alike", "open"] = "open"
    if len(both) >= min(FEWEST, len(order)):
        if low > 0 or high < 0:
            verdict = "above" if low > 0 else "below"
        elif -margin <= low and high <= margin:
            verdict = "alike"
    return Standing(against, verdict, len(both), low, high)
