"""Paired tests of two models: both answer the same docs, so the docs' differences are tested, not the two scores.

A doc's difficulty is common to both models and leaves their difference, which therefore has a far smaller standard error than
either score (Miller 2024, section 4).
"""

from __future__ import annotations

import json
import logging
import math
import re
import string
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.scoring.statistics import (
    LEVEL,
    ROUNDING,
    Floats,
    Parts,
    Weighting,
    is_binary,
    is_proportion,
    parts,
    student_interval,
)

FEW = 30  # below so many docs (clusters) a mean is not taken as normal
COCHRAN = 25.0  # nor below 25 times the squared skewness (Cochran, Sampling Techniques, 1977, section 2.15)
MANY = 5_000  # from here on it is, and resampling would take minutes
EXACT = 14  # units whose signs are flipped in every way there is
RESAMPLES = 99_999

NONE = "no common doc"
MCNEMAR = "McNemar"
PAIRED_T = "paired t"
SIGN_FLIP = "sign flips"
CLUSTERED = ", clusters"

log = logging.getLogger("steelyard.results")


@dataclass(frozen=True)
class PairedComparison:
    """Score of a minus score of b over the ``docs`` that both have a value for; ``left_out`` counts the others.

    ``low`` and ``high`` bound the difference at the level asked for. ``wins`` counts docs where a's value is the higher one.
    Numbers are NaN where there is nothing to tell them from.
    """

    difference: float
    low: float
    high: float
    p_value: float
    docs: int
    left_out: int
    method: str
    wins: int
    losses: int
    ties: int


def compare_paired(
    a: ArrayLike,
    b: ArrayLike,
    *,
    tasks: ArrayLike | None = None,
    weights: Weighting = "docs",
    clusters: ArrayLike | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> PairedComparison:
    """Compare two models' values [docs], NaN where one has none; further arguments as in `core.scoring.statistics.estimate`.

    The test follows from the values, two-sided each time:

    - 0 and 1, no clusters, every doc of one weight: McNemar's exact test, on the docs where the two differ. The interval is Bonett
      and Price's (2012): Wald's with one doc more on either side. Close to the border the two may disagree; the test decides.
    - otherwise Student's t on the differences with the standard error of `core.scoring.statistics`, by docs or clusters,
    - unless the mean cannot be taken as normal: fewer than 30 docs (clusters), or, up to 5,000, not more than 25 times the squared
      skewness of their contributions. Then the signs of the differences are flipped, a cluster's together: in all ways up to 14
      docs (clusters), beyond in 9,999 to 99,999 random ones drawn with ``seed``. The interval holds every difference that this test
      does not reject; it has no ends where the docs are too few to reject any.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    both = ~(np.isnan(first) | np.isnan(second))
    left_out = int(len(both) - both.sum())
    first, second = first[both], second[both]
    if not len(first):
        return PairedComparison(*(math.nan,) * 4, docs=0, left_out=left_out, method=NONE, wins=0, losses=0, ties=0)
    kept = [None if names is None else np.asarray(names)[both] for names in (tasks, clusters)]
    taken = parts(first - second, tasks=kept[0], weights=weights, clusters=kept[1])
    wins, losses = int((first > second).sum()), int((first < second).sum())
    bounded = is_proportion(first) and is_proportion(second)
    alike = bool(np.ptp(taken.weights) <= 1e-12)
    if clusters is None and alike and is_binary(first) and is_binary(second):
        method, (low, high) = MCNEMAR, bonett_price(wins, losses, len(first), level)
        p_value = mcnemar(wins, losses)
    elif _is_normal(taken):
        from scipy.stats import t

        found = taken.estimate
        method, (low, high) = PAIRED_T, student_interval(found, level)
        p_value = float(2.0 * t.sf(abs(found.value) / found.stderr, found.df))
    else:
        method, (p_value, low, high) = SIGN_FLIP, _flip_signs(taken, level, seed)
    return PairedComparison(
        difference=taken.estimate.value,
        low=max(low, -1.0) if bounded else low,
        high=min(high, 1.0) if bounded else high,
        p_value=p_value,
        docs=len(first),
        left_out=left_out,
        method=method if clusters is None else method + CLUSTERED,
        wins=wins,
        losses=losses,
        ties=len(first) - wins - losses,
    )


def mcnemar(wins: int, losses: int) -> float:
    """Return the p-value of McNemar's exact test: of docs that differ, does either model win more than half?"""
    from scipy.special import bdtr

    # The binomial test at one half, which is symmetric: scipy.stats.binomtest says the same, searching for the other tail.
    return min(1.0, 2.0 * float(bdtr(min(wins, losses), wins + losses, 0.5)))


def bonett_price(wins: int, losses: int, docs: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of (wins - losses)/docs: Wald's, after Laplace's adjustment (Bonett & Price 2012)."""
    from scipy.stats import norm

    won, lost, n = wins + 1.0, losses + 1.0, docs + 2.0
    centre = (won - lost) / n
    half = float(norm.ppf(0.5 + level / 2.0)) * math.sqrt(((won + lost) / n - centre**2) / n)
    return centre - half, centre + half


def holm(p_values: ArrayLike) -> Floats:
    """Return Holm's (1979) adjusted p-values; NaN stays NaN and counts as no test."""
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p_values, dtype=np.float64)
    adjusted, tested = np.full(p.shape, math.nan), ~np.isnan(p)
    if tested.any():
        adjusted[tested] = multipletests(p[tested], method="holm")[1]
    return adjusted


def compact_letters(different: NDArray[np.bool_]) -> list[str]:
    """Return each model's letters, from a symmetric matrix [models, models], best model first, of who differs from whom.

    Two models share a letter exactly where they do not differ: a letter stands for a set of models none of which differ, and every
    such two are in one of the sets. The best model has an ``a``.
    """
    sets: list[list[int]] = []
    shared = np.zeros_like(different, dtype=bool)
    for one in range(len(different)):
        for other in range(one, len(different)):
            if different[one, other] or shared[one, other]:
                continue
            members = [one, other] if other > one else [one]
            candidates = [model for model in range(len(different)) if model not in members]
            for model in sorted(candidates, key=lambda model: abs(model - one)):
                if not different[model, members].any():
                    members.append(model)
            shared[np.ix_(members, members)] = True
            sets.append(sorted(members))
    return [
        "".join(_letter(number) for number, members in enumerate(sets) if model in members)
        for model in range(len(different))
    ]


def _letter(number: int) -> str:
    letters = string.ascii_letters
    return letters[number % len(letters)] + (str(number // len(letters)) if number >= len(letters) else "")


def share_letter(one: str, other: str) -> bool:
    """Return whether two entries of `compact_letters` have a letter in common."""
    letters = [set(re.findall(r"[A-Za-z]\d*", each)) for each in (one, other)]
    return not letters[0].isdisjoint(letters[1])


def _is_normal(taken: Parts) -> bool:
    from scipy.stats import skew

    units = len(taken.residuals)
    if units < FEW or taken.df <= 0 or not taken.residuals.any():
        return False
    return units >= MANY or units > COCHRAN * float(skew(taken.residuals)) ** 2


def _flip_signs(taken: Parts, level: float, seed: int) -> tuple[float, float, float]:
    """Return the sign-flip test's p-value, and as interval every difference that it does not reject (Hartigan 1969).

    With every difference less by δ, flipping a set raises the sum where the set's mean is below δ: so the sorted means of the sets
    are the interval's possible ends.
    """
    values, weights, sign = _canonical(taken)
    flips, ways = _flips(len(values), np.random.default_rng(seed))
    total = flips @ values
    total[np.abs(total) <= ROUNDING * np.abs(values).max()] = 0.0
    size = flips @ weights
    some = size > 0.0
    means = np.sort(total[some] / size[some])
    always = ways - len(means)  # flips of nothing leave the sum as it is, whatever the shift
    tails = always + min(int((means <= 0.0).sum()), int((means >= 0.0).sum()))
    rank = math.floor(ways * (1.0 - level) / 2.0 * (1.0 + ROUNDING)) - always
    low, high = (float(means[rank]), float(means[-1 - rank])) if 0 <= rank < len(means) else (-math.inf, math.inf)
    return (min(1.0, 2.0 * tails / ways), *((low, high) if sign > 0 else (-high, -low)))


def _flips(units: int, rng: np.random.Generator) -> tuple[Floats, int]:
    """Return sets to flip, 0 or 1 [ways, units]: all of them but the empty one, or random ones; and their number with that one."""
    if units <= EXACT:
        codes = np.arange(1, 2**units)
        return ((codes[:, None] >> np.arange(units)) & 1).astype(np.float64), 2**units
    ways = min(RESAMPLES, max(RESAMPLES // 10, 10_000_000 // units))
    packed = rng.integers(0, 256, (ways, -(-units // 8)), dtype=np.uint8)
    return np.unpackbits(packed, axis=1, count=units).astype(np.float64), ways + 1


def _canonical(taken: Parts) -> tuple[Floats, Floats, int]:
    """Put units in an order of their own and turn them one way round, so that neither docs' order nor whose score is a matters."""
    order = np.lexsort((taken.weights, taken.values))
    turned = np.lexsort((taken.weights, -taken.values))
    forth, back = taken.values[order], -taken.values[turned]
    unequal = np.flatnonzero(forth != back)
    if len(unequal) and forth[unequal[0]] < back[unequal[0]]:
        return back, taken.weights[turned], -1
    return forth, taken.weights[order], 1


def cluster_keys(benchmark: str, docs: Iterable[str], field: str) -> list[str]:
    """Return a key for each doc (JSON), equal where ``field`` is. A doc without it is alone, and the log says so."""
    read = map(json.loads, docs)
    values = [doc.get(field) if isinstance(doc, dict) else None for doc in read]
    if missing := values.count(None):
        log.warning(
            "benchmark %r: metadata.cluster = %r: %d of %d docs have no such field, each counts as a cluster of its own",
            benchmark,
            field,
            missing,
            len(values),
        )
    return [
        f"doc {number}" if value is None else json.dumps(value, sort_keys=True) for number, value in enumerate(values)
    ]
