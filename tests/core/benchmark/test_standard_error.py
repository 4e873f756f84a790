"""Standard errors of scores that are no means: the harness's own numbers, by its own functions, without its minutes."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

from core.benchmark import standard_error as ours
from core.benchmark.standard_error import TEXT_RESAMPLES, resamples, standard_error
from perf.standard_errors import WORDS

DICE = random.Random(11)


def text() -> str:
    return " ".join(DICE.choice(WORDS) for _ in range(DICE.randint(3, 14)))


def near(words: str) -> str:
    return " ".join(word if DICE.random() < 0.7 else DICE.choice(WORDS) for word in words.split())


def labels(docs: int, most: int = 1) -> list[tuple[int, int]]:
    golds = [DICE.randint(0, most) for _ in range(docs)]
    return [(gold, gold if DICE.random() < 0.6 else DICE.randint(0, most)) for gold in golds]


def texts(docs: int) -> list[tuple[str, str]]:
    references = [text() for _ in range(docs)]
    return [(reference, near(reference)) for reference in references]


def with_two_references(docs: int) -> list[tuple[list[str], list[str]]]:
    return [([reference, near(reference)], [answer]) for reference, answer in texts(docs)]


def numbers(docs: int) -> list[float]:
    return [DICE.gauss(-2.0, 1.0) for _ in range(docs)]


def theirs(
    aggregation: Callable[..., Any], items: list[Any], iterations: int, monkeypatch: pytest.MonkeyPatch
) -> float:
    from lm_eval.api.metrics import stderr_for_metric

    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    function = stderr_for_metric(metric=aggregation, bootstrap_iters=iterations)
    assert function is not None
    return float(function(items))


def aggregation_of(name: str) -> Callable[..., Any]:
    from lm_eval.api import metrics
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    assert metrics  # it fills the registry
    found: Callable[..., Any] = AGGREGATION_REGISTRY[name]
    return found


@pytest.mark.parametrize("docs", [2, 30])
@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("f1", labels),
        ("matthews_corrcoef", lambda docs: labels(docs, 2)),
        ("bleu", texts),
        ("bleu", with_two_references),
        ("chrf", texts),
        ("chrf++", with_two_references),
        ("ter", texts),
        ("ter", with_two_references),
        ("mean", numbers),
    ],
)
def test_the_standard_error_is_the_harness_s(
    name: str, made: Callable[[int], list[Any]], docs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same draws: of labels as many as of texts here, so that the harness's own take no minutes."""
    monkeypatch.setattr(ours, "resamples", lambda: TEXT_RESAMPLES)
    aggregation, items = aggregation_of(name), made(docs)
    found = standard_error(name, aggregation, items, aggregation(items))
    assert found == pytest.approx(theirs(aggregation, items, TEXT_RESAMPLES, monkeypatch), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", ["median", "perplexity", "nanmean"])
def test_what_has_a_closed_form_is_what_the_harness_draws_towards(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    aggregation, items = aggregation_of(name), numbers(40)
    if name == "nanmean":
        items[3] = items[17] = float("nan")
    expected = theirs(aggregation, items, 10_000, monkeypatch)  # known to 0.7%
    assert standard_error(name, aggregation, items, aggregation(items)) == pytest.approx(expected, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("f1", 1), ("matthews_corrcoef", 3)])
def test_labels_of_many_docs_have_the_harness_s_standard_error(
    name: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are known to about a hundredth from so many draws of the harness's."""
    aggregation, items = aggregation_of(name), labels(1_000, most)
    found = standard_error(name, aggregation, items, aggregation(items))
    assert found == pytest.approx(theirs(aggregation, items, 10_000, monkeypatch), rel=0.03)


def test_every_aggregation_that_the_harness_bootstraps_is_known() -> None:
    """A new one would be drawn by hand: this says so when the harness gets it."""
    from lm_eval.api.metrics import stderr_for_metric
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    made = dict.fromkeys(("bleu", "chrf", "chrf++", "ter"), texts) | dict.fromkeys(("f1", "matthews_corrcoef"), labels)
    seen = []
    for name, aggregation in AGGREGATION_REGISTRY.items():
        function = stderr_for_metric(metric=aggregation, bootstrap_iters=1)
        if function is not None and "bootstrap_iters" in function.__code__.co_freevars:
            items = made.get(name, numbers)(6)
            known = ours._known(aggregation, items)
            assert known is not None, name
            assert known[0] == pytest.approx(aggregation(items)), name
            seen.append(name)
    assert len(seen) >= 9


def test_resamples_are_as_many_as_the_harness_draws() -> None:
    assert resamples() == 100_000


def test_what_the_harness_gives_none_for_has_none() -> None:
    def own(items: list[float]) -> float:
        return max(items)

    assert standard_error("own", own, [1.0, 2.0], 2.0) is None
    assert standard_error("acc", None, [1.0], 1.0) is None
    assert standard_error("acc", None, [1.0, 0.0, 0.0, 0.0], 0.25) == pytest.approx(0.25)


def test_another_score_than_ours_is_drawn_by_hand_for_as_long_as_is_bearable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a version of the harness comes to define F1 in another way."""
    monkeypatch.setattr(ours, "SECONDS", 0.0)
    caplog.set_level(logging.INFO, "steelyard.results")
    aggregation, items = aggregation_of("f1"), labels(20)
    found = standard_error("f1", aggregation, items, aggregation(items) + 0.01)
    assert found == pytest.approx(theirs(aggregation, items, 30, monkeypatch))
    assert "f1: standard error from 30 resamples, not the harness's 100000" in caplog.text


def test_a_standard_error_that_fails_costs_no_score(caplog: pytest.LogCaptureFixture) -> None:
    assert standard_error("f1", aggregation_of("f1"), [(0, 1, 2), ("a",)], 0.5) is None
    assert "f1: no standard error: " in caplog.text
