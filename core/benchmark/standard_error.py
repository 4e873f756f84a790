"""Scores of tasks and groups with standard errors as lm-evaluation-harness (0.4.13) gives them, in seconds.

The harness decides which aggregations have a standard error. Means it has a formula for; the others it bootstraps with 100,000
resamples in Python, minutes of one core for eight docs. Here they follow from `core.scoring.resampling`, as long as that gives the
harness's own score for the docs; any other is drawn as the harness draws, for as long as is bearable.
"""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from core.scoring.resampling import (
    correlation_of,
    drawn_counts,
    draws,
    f1_of,
    median_stderr,
    nanmean_stderr,
    pairs_of,
    perplexity_stderr,
    resampled_stderr,
)

SECONDS = 10.0  # for an aggregation that has to be drawn by hand
FEWEST = 30  # resamples, whatever they take: the standard error is then known to about an eighth
TELL_SECONDS = 5.0
TEXTS_AT_ONCE = 500
TEXT_RESAMPLES = 100  # the harness's number for BLEU, chrF and TER

log = logging.getLogger("steelyard.results")

# The docs' score by other means, to be checked against the harness's, and what gives its standard error.
Found = tuple[float, Callable[[], float]]


def aggregated(accumulated: Mapping[str, Any], groups: Mapping[str, Any], *, errors: bool = True) -> dict[str, Any]:
    """Return lm-eval's flat results by task and group, from what it accumulates over docs; with standard ``errors`` or without."""
    from lm_eval.evaluator_utils import _collect_results, aggregate_groups

    results: Any = _collect_results(dict(accumulated), dict(groups), 0)  # without standard errors
    for name, own in accumulated.items() if errors else ():
        found, aggregations = results.metrics[name], own["task"].aggregation()
        for (metric, filter_), items in own["raw_metrics"].items():
            stderr = standard_error(metric, aggregations.get(metric), items, found[f"{metric},{filter_}"])
            found[f"{metric}_stderr,{filter_}"] = "N/A" if stderr is None else stderr
    metrics: dict[str, Any] = aggregate_groups(results).metrics
    return metrics


def standard_error(
    metric: str, aggregation: Callable[..., Any] | None, items: Sequence[Any], score: float
) -> float | None:
    """Return the standard error of a metric's ``score`` over docs' ``items``, None where the harness has none.

    ``aggregation`` is one of the harness's functions, or a task's own; its mean where it is None.
    """
    from lm_eval.api import metrics

    aggregate = aggregation or metrics.mean
    theirs = metrics.stderr_for_metric(metric=aggregate, bootstrap_iters=1)
    if theirs is None or len(items) < 2:
        return None
    try:
        if "bootstrap_iters" not in theirs.__code__.co_freevars:
            return float(theirs(items))  # it has a formula
        found = _known(aggregate, items)
        if found is not None and _same(found[0], score):
            return found[1]()
        return _by_hand(metric, aggregate, items)
    except Exception as error:  # what is no number to one of them; the score stands without
        log.warning("%s: no standard error: %s: %s", metric, type(error).__name__, error)
        return None


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))


def resamples() -> int:
    """Return how many resamples the harness draws."""
    from lm_eval.evaluator_utils import _process_results

    return int(inspect.signature(_process_results).parameters["bootstrap_iters"].default)


def _known(aggregate: Callable[..., Any], items: Sequence[Any]) -> Found | None:
    from lm_eval.api import metrics
    from sacrebleu.metrics import BLEU, CHRF, TER

    known: dict[Any, Callable[[], Found]] = {
        metrics.median: lambda: (metrics.median(items), lambda: median_stderr(items)),
        metrics.perplexity: lambda: (metrics.perplexity(items), lambda: perplexity_stderr(items)),
        metrics.nanmean: lambda: (metrics.nanmean(items), lambda: nanmean_stderr(items)),
        metrics.f1_score: lambda: _of_labels(f1_of, items),
        metrics.matthews_corrcoef: lambda: _of_labels(correlation_of, items),
        metrics.bleu: lambda: _of_texts(BLEU(force=True), items),
        metrics.chrf: lambda: _of_texts(CHRF(), items),
        metrics.chrfpp: lambda: _of_texts(CHRF(word_order=2), items),
        metrics.ter: lambda: _of_texts(TER(), items),
    }
    return known[aggregate]() if aggregate in known else None


def _of_labels(score_of: Callable[..., Callable[[Any], Any]], items: Sequence[Any]) -> Found:
    pairs, kinds = pairs_of(items)
    score = score_of(pairs)
    return float(score(np.bincount(kinds)[None])[0]), lambda: resampled_stderr(score, kinds, resamples())


def _of_texts(metric: Any, items: Sequence[Any]) -> Found:
    """Score a corpus from sacrebleu's own statistics of each doc, which add up to those of any resample."""
    statistics = np.concatenate(list(_statistics(metric, items)))

    def score(sums: Any) -> float:
        return float(metric._compute_score_from_stats(sums.tolist()).score)

    def stderr() -> float:
        counts = drawn_counts(np.arange(len(statistics)), TEXT_RESAMPLES)
        return float(np.std([score(sums) for rows in counts for sums in rows @ statistics], ddof=1))

    return score(statistics.sum(axis=0)), stderr


def _statistics(metric: Any, items: Sequence[Any]) -> Iterator[Any]:
    """Yield sacrebleu's statistics [docs, numbers], some docs at a time, and tell how far it is: TER takes its time."""
    from lm_eval.api.metrics import _sacreformat

    references, texts = _sacreformat(*zip(*items, strict=True))
    told = time.monotonic()
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = slice(start, start + TEXTS_AT_ONCE)
        yield np.array(metric._extract_corpus_statistics(texts[part], [each[part] for each in references]))
        now = time.monotonic()
        if now - told > TELL_SECONDS:
            told = now
            log.info("%s: standard error, %d of %d docs", type(metric).__name__, min(part.stop, len(texts)), len(texts))


def _by_hand(metric: str, aggregate: Callable[..., Any], items: Sequence[Any]) -> float:
    """Score one resample after another for `SECONDS`, `FEWEST` at least, and tell how far it is."""
    found: list[float] = []
    begun = told = time.monotonic()
    most = resamples()
    for places in (row for rows in draws(len(items), most) for row in rows):
        found.append(float(aggregate([items[place] for place in places])))
        now = time.monotonic()
        if now - begun > SECONDS and len(found) >= FEWEST:
            log.info("%s: standard error from %d resamples, not the harness's %d", metric, len(found), most)
            break
        if now - told > TELL_SECONDS:
            told = now
            log.info("%s: standard error, %d resamples in %.0f s", metric, len(found), now - begun)
    return float(np.std(found, ddof=1))
