"""Standard errors of scores that are no means of docs, by the bootstrap: how a score spreads over docs drawn with replacement.

lm-evaluation-harness (0.4.13, ``lm_eval.api.metrics.bootstrap_stderr``) draws as `draws` does and scores each resample in Python,
100,000 times. The same follows faster from how often each kind of doc was drawn, and for some scores has a closed form: what
the harness's number tends to as it draws more.

The bootstrap (Efron 1979) takes the docs as their own population: a resample of n docs has n·mean of them on average, and its
variance is that of n docs drawn, not n - 1.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

CHUNK = 1000  # resamples of one seed in the harness
AS_DRAWN = 20_000_000  # docs to draw as the harness does, which takes some tenths of a second
AT_ONCE = 4_000_000  # docs, or counts, to hold at once
MOST_NUMBERS = 100_000_000  # counts to draw in all, which takes seconds


def draws(docs: int, resamples: int) -> Iterator[Counts]:
    """Yield the places of the docs that the harness draws, some resamples at a time [rows, docs].

    Its generators are Python's, seeded 0, 1, …, one for each `CHUNK` resamples; NumPy's gives the same numbers from their state.
    """
    chunk = min(CHUNK, resamples)
    rows = max(1, AT_ONCE // docs)
    for seed in range(resamples // chunk):
        _, state, _ = random.Random(seed).getstate()  # noqa: S311 - the harness's
        generator = np.random.RandomState()
        generator.set_state(("MT19937", np.array(state[:-1], dtype=np.uint32), state[-1], 0, 0.0))
        for start in range(0, chunk, rows):
            yield (generator.random_sample((min(rows, chunk - start), docs)) * docs).astype(np.int64)


def drawn_counts(kinds: Counts, resamples: int) -> Iterator[Counts]:
    """Yield how often each kind of doc is in the harness's resamples [rows, number of kinds]; ``kinds`` [docs] counts from 0."""
    number = int(kinds.max()) + 1
    for places in draws(len(kinds), resamples):
        cells = kinds[places] + number * np.arange(len(places))[:, None]
        yield np.bincount(cells.ravel(), minlength=len(places) * number).reshape(len(places), number)


def alike_counts(kinds: Counts, resamples: int, seed: int) -> Iterator[Counts]:
    """Yield counts as `drawn_counts` does, drawn with ``seed`` from their distribution: the multinomial of the kinds' shares.

    Of many kinds there are fewer resamples than asked for, `CHUNK` at least.
    """
    shares = np.bincount(kinds) / len(kinds)
    left = max(CHUNK, min(resamples, MOST_NUMBERS // len(shares)))
    generator, rows = np.random.default_rng(seed), max(1, AT_ONCE // len(shares))
    while left > 0:
        yield generator.multinomial(len(kinds), shares, min(rows, left))
        left -= rows


def resampled_stderr(score: Callable[[Counts], Floats], kinds: Counts, resamples: int, *, seed: int = 0) -> float:
    """Return the standard deviation of a score [resamples] of the counts of kinds [resamples, number of kinds].

    Resamples are the harness's own while those are few docs in all (`AS_DRAWN`), and alike beyond.
    """
    few = len(kinds) * resamples <= AS_DRAWN
    counted = drawn_counts(kinds, resamples) if few else alike_counts(kinds, resamples, seed)
    return float(np.concatenate([score(counts) for counts in counted]).std(ddof=1))


def pairs_of(items: Sequence[tuple[object, object]]) -> tuple[list[tuple[object, object]], Counts]:
    """Return the distinct pairs of gold and predicted label, and which of them each doc is [docs]."""
    numbers: dict[tuple[object, object], int] = {}
    kinds = [numbers.setdefault((gold, predicted), len(numbers)) for gold, predicted in items]
    return list(numbers), np.array(kinds, dtype=np.int64)


def f1_of(pairs: Sequence[tuple[object, object]]) -> Callable[[Counts], Floats]:
    """Return F1 of label 1 by counts of ``pairs``, 2·hits / (gold + predicted), and 0 where no doc has it."""
    gold, predicted = (np.array([pair[side] == 1 for pair in pairs], dtype=np.int64) for side in (0, 1))

    def score(counts: Counts) -> Floats:
        marked = counts @ (gold + predicted)
        return _ratio(2.0 * (counts @ (gold * predicted)), marked)

    return score


def correlation_of(pairs: Sequence[tuple[object, object]]) -> Callable[[Counts], Floats]:
    """Return Matthews' correlation by counts of ``pairs``, of any number of labels (Gorodkin 2004); 0 where it has no value."""
    labels = list(dict.fromkeys(label for pair in pairs for label in pair))
    gold, predicted = (np.array([[pair[side] == label for label in labels] for pair in pairs]) for side in (0, 1))
    right = np.array([pair[0] == pair[1] for pair in pairs])

    def score(counts: Counts) -> Floats:
        exact = counts.astype(np.float64)
        docs, hits = exact.sum(axis=1), exact @ right
        golds, predictions = exact @ gold, exact @ predicted
        spread = (docs**2 - (predictions**2).sum(axis=1)) * (docs**2 - (golds**2).sum(axis=1))
        return _ratio(hits * docs - (golds * predictions).sum(axis=1), np.sqrt(spread))

    return score


def _ratio(above: ArrayLike, below: ArrayLike) -> Floats:
    top, bottom = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom != 0.0)


def median_stderr(values: ArrayLike) -> float:
    """Return the bootstrap's standard error of the upper median, the value at ⌊n/2⌋ of n in order.

    A resample's is at most v where more than ⌊n/2⌋ of its docs are, whose number is binomial (Maritz & Jarrett 1978).
    """
    from scipy.stats import binom

    ordered, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    docs = int(counts.sum())
    chances = np.diff(binom.sf(docs // 2, docs, np.cumsum(counts) / docs), prepend=0.0)
    mean = float(chances @ ordered)
    return math.sqrt(float(chances @ (ordered - mean) ** 2))


def perplexity_stderr(logprobs: ArrayLike) -> float:
    """Return the bootstrap's standard error of exp(-mean).

    Its moments over resamples of n docs are E[exp(-k·mean)] = (mean of exp(-k·x/n))ⁿ.
    """
    x = np.asarray(logprobs, dtype=np.float64)
    docs, centre = len(x), x.mean()
    with np.errstate(over="ignore", invalid="ignore"):  # resamples may lie beyond what a float holds
        # log of the mean of exp(-k·(x - centre)/n), without losing what is close to 1
        first, second = (np.log1p(np.expm1(-k * (x - centre) / docs).mean()) for k in (1, 2))
        return float(np.exp(docs * first - centre) * np.sqrt(np.maximum(0.0, np.expm1(docs * (second - 2.0 * first)))))


def nanmean_stderr(values: ArrayLike) -> float:
    """Return the bootstrap's standard error of a mean that leaves out NaN; NaN where nothing is left.

    A resample of n docs has m values, binomial, and its mean the variance σ²/m; one without values is left out.
    """
    from scipy.stats import binom

    x = np.asarray(values, dtype=np.float64)
    known = x[~np.isnan(x)]
    if not len(known):
        return math.nan
    sizes = np.arange(1, len(x) + 1)
    chances = binom.pmf(sizes, len(x), len(known) / len(x))
    return math.sqrt(float(known.var()) * float((chances / sizes).sum() / chances.sum()))
