"""Standard errors by resampling: the harness's own draws, and what its number tends to as it draws more."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from core.scoring import resampling
from core.scoring.resampling import (
    alike_counts,
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

DICE = random.Random(7)
LABELS = [(gold := DICE.randint(0, 1), gold if DICE.random() < 0.7 else 1 - gold) for _ in range(300)]
WORDS = [(word := DICE.choice("abc"), word if DICE.random() < 0.5 else DICE.choice("abc")) for _ in range(300)]
NUMBERS = [DICE.gauss(-2.0, 1.0) for _ in range(9)]


def drawn_by_python(docs: int, resamples: int) -> list[list[int]]:
    """As `lm_eval.api.metrics._bootstrap_internal_no_mp` draws."""
    chunk = min(1000, resamples)
    generators = [random.Random(seed) for seed in range(resamples // chunk)]
    return [each.choices(range(docs), k=docs) for each in generators for _ in range(chunk)]


@pytest.mark.parametrize(("docs", "resamples"), [(1, 3), (7, 100), (5, 3000), (3, 1500)])
def test_docs_are_drawn_as_the_harness_draws_them(docs: int, resamples: int) -> None:
    assert [list(row) for rows in draws(docs, resamples) for row in rows] == drawn_by_python(docs, resamples)


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "AT_ONCE", 30)
    assert [list(row) for rows in draws(7, 2000) for row in rows] == drawn_by_python(7, 2000)


def test_counts_are_those_of_what_was_drawn() -> None:
    kinds = np.array([2, 0, 2, 1])
    counted = np.concatenate(list(drawn_counts(kinds, 100)))
    assert counted.tolist() == [
        [sum(kinds[doc] == kind for doc in row) for kind in range(3)] for row in drawn_by_python(4, 100)
    ]


@pytest.mark.parametrize("items", [LABELS, LABELS[:3], [(0, 0), (0, 0)], [(1, 0), (0, 1)], [(1, 1)] * 4])
def test_f1_is_the_harness_s(items: list[tuple[int, int]]) -> None:
    from lm_eval.api.metrics import f1_score

    pairs, kinds = pairs_of(items)
    (found,) = f1_of(pairs)(np.bincount(kinds)[None])
    assert found == f1_score(items)


@pytest.mark.parametrize("items", [LABELS, WORDS, LABELS[:3], [("a", "a"), ("a", "b")], [(1, 1)] * 4])
def test_the_correlation_is_the_harness_s(items: list[tuple[Any, Any]]) -> None:
    from lm_eval.api.metrics import matthews_corrcoef

    pairs, kinds = pairs_of(items)
    (found,) = correlation_of(pairs)(np.bincount(kinds)[None])
    assert found == pytest.approx(matthews_corrcoef(items))


@pytest.mark.parametrize(("score_of", "items"), [(f1_of, LABELS), (correlation_of, WORDS)])
def test_counts_of_many_docs_are_drawn_from_the_same_distribution(
    score_of: Callable[..., Any], items: Sequence[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, kinds = pairs_of(items)
    as_drawn = resampled_stderr(score_of(pairs), kinds, 20_000)
    monkeypatch.setattr(resampling, "AS_DRAWN", 0)
    assert resampled_stderr(score_of(pairs), kinds, 20_000) == pytest.approx(as_drawn, rel=0.03)
    assert resampled_stderr(score_of(pairs), kinds, 20_000) != as_drawn


def test_of_many_kinds_fewer_resamples_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "MOST_NUMBERS", 4_000_000)
    monkeypatch.setattr(resampling, "AT_ONCE", 30_000)
    drawn = list(alike_counts(np.arange(1_000), 100_000, 0))
    assert {int(number) for counts in drawn for number in counts.sum(axis=1)} == {1_000}
    assert sum(map(len, drawn)) == 4_000
    assert sum(map(len, alike_counts(np.arange(9_000), 100_000, 0))) == 1_000


def bootstrap(score: Callable[[list[float]], float], values: Sequence[float]) -> float:
    found = [score([values[doc] for doc in row]) for row in drawn_by_python(len(values), 20_000)]
    return float(np.nanstd(found, ddof=1))


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


@pytest.mark.parametrize("values", [NUMBERS, NUMBERS[:8], [1.0, 2.0], [1.0, 1.0, 4.0, 4.0, 9.0], [3.0, 3.0]])
def test_medians_spread_as_those_of_resamples(values: list[float]) -> None:
    assert median_stderr(values) == pytest.approx(bootstrap(median, values), rel=0.03)


@pytest.mark.parametrize("values", [NUMBERS, NUMBERS[:2], [-0.5] * 5, [value - 300 for value in NUMBERS]])
def test_perplexities_spread_as_those_of_resamples(values: list[float]) -> None:
    expected = bootstrap(lambda drawn: math.exp(-sum(drawn) / len(drawn)), values)
    assert perplexity_stderr(values) == pytest.approx(expected, rel=0.03, abs=1e-12)


def test_perplexities_of_many_docs_spread_as_their_logarithm_does() -> None:
    values = np.random.default_rng(0).normal(-3.0, 1.5, 200_000)
    expected = math.exp(-values.mean()) * values.std() / math.sqrt(len(values))  # the delta method
    assert perplexity_stderr(values) == pytest.approx(expected, rel=1e-3)


def test_a_perplexity_beyond_what_a_float_holds_has_no_number() -> None:
    assert not math.isfinite(perplexity_stderr([-5.0, -9_000.0]))
    assert not math.isfinite(perplexity_stderr([-5.0, -math.inf]))


def test_means_without_nan_spread_as_those_of_resamples() -> None:
    values = [math.nan if place % 3 == 0 else value for place, value in enumerate(NUMBERS)]
    assert nanmean_stderr(values) == pytest.approx(bootstrap(lambda drawn: float(np.nanmean(drawn)), values), rel=0.03)
    assert nanmean_stderr(NUMBERS) == pytest.approx(np.std(NUMBERS) / math.sqrt(len(NUMBERS)))
    assert math.isnan(nanmean_stderr([math.nan, math.nan]))
