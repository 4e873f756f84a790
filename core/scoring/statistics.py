"""A score and how sure it is: standard errors, confidence intervals, repeated sampling and pass@k, from plain arrays.

Arrays have one value per doc, NaN where a doc has none; those docs are left out.

A score is θ = Σ aᵢ·xᵢ, where aᵢ is doc i's share: 1/n where every doc weighs the same (one task, or a group weighted by size),
1/(T·nₜ) where each of T tasks does. Its standard error, with eᵢ = aᵢ·(xᵢ - mean of i's task) summed within each of G clusters:

    SE² = G/(G - C) · Σ_clusters (Σ_docs eᵢ)²          df = G - C

C counts the sets of tasks that no cluster connects, each of which uses up one degree of freedom. Known cases:

- one task, every doc alone: s/√n, as the harness gives for a mean;
- one task in clusters: the clustered standard error of Miller 2024 ("Adding Error Bars to Evals", arXiv 2411.00640), with the
  small-sample factor G/(G - 1) on all of it (CR1) where the paper has n/(n - 1) on its first term: alike when every doc is alone;
- several tasks weighted by size, every doc alone: the harness's pooled standard error of a group.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.sample import Repeats

LEVEL = 0.95
ROUNDING = 1e-12  # what differs less, by the largest value, is the same

Weighting = Literal["docs", "tasks"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreEstimate:
    """A score. ``stderr`` is NaN where ``df``, its degrees of freedom, is 0; ``clusters`` equals ``docs`` where none are named."""

    value: float
    stderr: float
    docs: int
    clusters: int
    df: int


@dataclass(frozen=True)
class Parts:
    """A score split by cluster: its docs' weighted values, weights and weighted residuals, summed."""

    values: Floats
    weights: Floats
    residuals: Floats
    docs: int
    df: int

    @property
    def estimate(self) -> ScoreEstimate:
        """The score with its standard error."""
        clusters = len(self.values)
        spread = float(self.residuals @ self.residuals)
        return ScoreEstimate(
            value=float(self.values.sum()) if self.docs else math.nan,
            stderr=math.sqrt(spread * clusters / self.df) if self.df > 0 else math.nan,
            docs=self.docs,
            clusters=clusters,
            df=self.df,
        )


def estimate(
    values: ArrayLike, *, tasks: ArrayLike | None = None, weights: Weighting = "docs", clusters: ArrayLike | None = None
) -> ScoreEstimate:
    """Return the mean of ``values`` [docs] with its standard error, as the module's docstring defines them.

    ``tasks`` [docs] names each doc's task; ``weights`` says whether every doc or every task weighs the same. ``clusters`` [docs]
    names docs that belong together (questions about one passage), whichever task they are in.
    """
    return parts(values, tasks=tasks, weights=weights, clusters=clusters).estimate


def parts(
    values: ArrayLike, *, tasks: ArrayLike | None = None, weights: Weighting = "docs", clusters: ArrayLike | None = None
) -> Parts:
    """Split a score by cluster. Arguments as in `estimate`."""
    x = np.asarray(values, dtype=np.float64)
    scored = ~np.isnan(x)
    x = x[scored]
    task = _codes(tasks, scored)
    sizes = np.bincount(task) if len(x) else np.zeros(0, dtype=np.int64)
    share = 1.0 / (len(sizes) * sizes[task] if weights == "tasks" else np.full(len(x), len(x)))
    residual = x - (np.bincount(task, x) / sizes)[task] if len(x) else x
    residual[np.abs(residual) <= ROUNDING * np.abs(x).max(initial=0.0)] = 0.0
    if clusters is None:
        return Parts(share * x, share, share * residual, docs=len(x), df=len(x) - len(sizes))
    cluster = _codes(clusters, scored)
    summed: list[Floats] = [np.bincount(cluster, each).astype(float) for each in (share * x, share, share * residual)]
    return Parts(summed[0], summed[1], summed[2], docs=len(x), df=len(summed[0]) - _connected(task, cluster))


def interval(
    values: ArrayLike,
    *,
    tasks: ArrayLike | None = None,
    weights: Weighting = "docs",
    clusters: ArrayLike | None = None,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Return the confidence interval of `estimate`; NaN where there is none.

    Values of 0 and 1 without clusters: Wilson's (1927), over n docs; with several tasks over as many docs as would give that
    spread in one task, p(1 - p)/Σeᵢ². All else: Student's t on the standard error. Values within [0, 1] are a proportion, and so
    is their interval; where their standard error is 0 or not defined it is Wilson's over the clusters, as nothing between 0 and 1
    varies more than 0 and 1 do.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[~np.isnan(x)]
    if not len(x):
        return math.nan, math.nan
    taken = parts(values, tasks=tasks, weights=weights, clusters=clusters)
    found = taken.estimate
    bounded = is_proportion(x)
    if clusters is None and is_binary(x):
        spread = float(taken.residuals @ taken.residuals)
        variance = found.value * (1.0 - found.value)
        return wilson(found.value, variance / spread if spread and variance > 0 else found.docs, level)
    if bounded and not found.stderr > 0:
        return wilson(found.value, found.clusters, level)
    low, high = student_interval(found, level)
    return (max(low, 0.0), min(high, 1.0)) if bounded else (low, high)


def wilson(share: float, docs: float, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's score interval of a ``share`` of ``docs``, which need not be a whole number."""
    from statsmodels.stats.proportion import proportion_confint

    share = min(max(share, 0.0), 1.0)
    low, high = proportion_confint(share * docs, docs, alpha=1.0 - level, method="wilson")
    # The bounds touch 0 and 1 exactly; rounding puts them a little off.
    return 0.0 if share == 0.0 else max(0.0, float(low)), 1.0 if share == 1.0 else min(1.0, float(high))


def student_interval(found: ScoreEstimate, level: float = LEVEL) -> tuple[float, float]:
    """Return value ± t·SE with the estimate's degrees of freedom; NaN where it has none."""
    from scipy.stats import t

    if found.df <= 0:
        return math.nan, math.nan
    half = float(t.ppf(0.5 + level / 2.0, found.df)) * found.stderr
    return found.value - half, found.value + half


def is_binary(values: Floats) -> bool:
    """Return whether every value is 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def is_proportion(values: Floats) -> bool:
    """Return whether every value is within [0, 1]."""
    return bool(((values >= 0.0) & (values <= 1.0)).all())


def repeated(values: ArrayLike) -> Repeats:
    """Split the variance of ``values`` [docs, repeats], NaN where an answer is missing; docs without any are left out.

    One-way random effects (analysis of variance, by unweighted doc means): within = pooled variance of a doc's answers, between =
    variance of the docs' means - within / repeats, 0 at least. The score is the mean of the docs' means, its standard error
    √(variance of the docs' means / docs), which holds both. See Miller 2024, section 3.1.
    """
    x = np.asarray(values, dtype=np.float64)
    counts = (~np.isnan(x)).sum(axis=1)
    x, counts = x[counts > 0], counts[counts > 0]
    docs = len(x)
    if not docs:
        return Repeats(math.nan, math.nan, 0, math.nan, math.nan, math.nan)
    means = np.nansum(x, axis=1) / counts
    spare = int(counts.sum()) - docs
    within = float(np.nansum((x - means[:, None]) ** 2)) / spare if spare else math.nan
    spread = float(means.var(ddof=1)) if docs > 1 else math.nan
    repeats = docs / float((1.0 / counts).sum())
    between = spread - within / repeats
    return Repeats(
        value=float(means.mean()),
        stderr=math.sqrt(spread / docs),
        docs=docs,
        repeats=repeats,
        within=within,
        between=between if math.isnan(between) else max(0.0, between),
    )


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """ScoreEstimate without bias the chance that one of ``k`` samples passes: 1 - C(n - c, k)/C(n, k) (Chen et al. 2021, eq. 1).

    Raises `ValueError` for fewer than ``k`` samples, and for more passed than there are.
    """
    if not (1 <= k <= samples and 0 <= passed <= samples):
        raise ValueError(f"pass@{k} needs 1 <= k <= samples and 0 <= passed <= samples; got {samples!r}, {passed!r}")
    return 1.0 - math.prod(max(samples - passed - drawn, 0) / (samples - drawn) for drawn in range(k))


def _codes(names: ArrayLike | None, scored: NDArray[np.bool_]) -> NDArray[np.int64]:
    if names is None:
        return np.zeros(int(scored.sum()), dtype=np.int64)
    return np.unique(np.asarray(names)[scored], return_inverse=True)[1]


def _connected(task: NDArray[np.int64], cluster: NDArray[np.int64]) -> int:
    """Count the sets of tasks that no cluster connects."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(task):
        return 0
    tasks = int(task.max()) + 1
    nodes = tasks + int(cluster.max()) + 1
    edges = coo_array((np.ones(len(task)), (task, tasks + cluster)), shape=(nodes, nodes))
    return int(connected_components(edges, directed=False, return_labels=False))


def spread(rows: Iterable[Sequence[float]]) -> Repeats | None:
    """Return `repeated` of the values of each doc's answers; None where no doc has two."""
    listed = [row for row in rows if row]
    most = max(map(len, listed), default=0)
    if most < 2:
        return None
    return repeated([[*row, *[math.nan] * (most - len(row))] for row in listed])
