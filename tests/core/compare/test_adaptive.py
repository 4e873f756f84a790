"""Docs in random order, in rounds, and which cells may be compared."""

from __future__ import annotations

import numpy as np
import pytest

from core.compare.adaptive import (
    Standing,
    confidence_sequence,
    of_docs,
    rounds,
    same_docs,
    shuffled,
    standing,
    values_of,
)
from core.store.quality import early
from tests.core.store_parts import make_scoring

DOCS = [f"task/{number}" for number in range(400)]


def test_the_order_is_random_and_the_same_for_everybody() -> None:
    order = shuffled(DOCS)
    assert order == shuffled(reversed(DOCS))
    assert sorted(order) == sorted(DOCS)
    first = [int(doc.split("/")[1]) for doc in order[:100]]
    assert 150 < sum(first) / 100 < 250


def test_fewer_docs_are_the_same_order_without_the_others() -> None:
    half = set(DOCS[:200])
    assert shuffled(half) == [doc for doc in shuffled(DOCS) if doc in half]


def test_rounds_grow_and_have_every_doc_once() -> None:
    parts = list(rounds(DOCS))
    assert [doc for part in parts for doc in part] == DOCS
    assert [len(part) for part in parts] == [64, 32, 48, 72, 108, 76]


def test_samples_of_docs_that_were_not_asked_are_left_out() -> None:
    scoring = make_scoring()
    docs = [f"{sample.task}/{sample.doc_id}" for sample in scoring.samples]
    kept = of_docs(scoring, docs[:1])
    assert kept.samples == scoring.samples[:1]
    assert kept.scores == scoring.scores
    assert values_of(kept.samples) == {docs[0]: scoring.samples[0].value}


def test_prompts_may_differ_between_cells_that_are_compared_and_docs_may_not() -> None:
    def cell(**changes: str) -> dict[str, object]:
        task = {"version": 1, "rows": "a", "targets": "b", "prompts": "c", **changes}
        return {"benchmark": {"tasks": {"own": task}}}

    assert same_docs(cell(), cell(prompts="with a chat template"))
    assert not same_docs(cell(), cell(rows="others"))
    assert not same_docs(cell(), {"benchmark": {"tasks": {}}})


def test_a_cell_that_ended_early_says_so() -> None:
    assert early({"docs": 96, "of": 1319}) == "ended after 96 of 1,319 docs"
    assert early({"docs": 1319, "of": 1319}) == early(None) == ""


def answers(dice: np.random.Generator, docs: int, *scores: float) -> list[np.ndarray]:
    """Right and wrong of models on the same docs: what is hard for one is hard for the others."""
    hardness = dice.uniform(size=docs)
    return [((0.7 * hardness + 0.3 * dice.uniform(size=docs)) < score).astype(float) for score in scores]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_the_mean_of_all_docs_is_inside_at_every_number_of_docs_as_often_as_promised(share: float) -> None:
    dice, docs, missed = np.random.default_rng(1), 400, 0
    for _ in range(400):
        values = (dice.uniform(size=docs) < share).astype(float)
        low, high = confidence_sequence(values, docs, alpha=0.1)
        missed += bool(((low > values.mean() + 1e-9) | (high < values.mean() - 1e-9)).any())
    assert missed / 400 <= 0.1 + 0.03


def test_intervals_shrink_to_the_mean() -> None:
    values = np.random.default_rng(0).uniform(size=300)
    low, high = confidence_sequence(values, 300)
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) <= 0).all()
    assert low[-1] == pytest.approx(values.mean())
    assert high[-1] == pytest.approx(values.mean())
    assert high[99] - low[99] < 0.4


def test_few_values_that_vary_little_say_more() -> None:
    dice = np.random.default_rng(0)
    wide = confidence_sequence(dice.integers(0, 2, 500), 10_000)
    narrow = confidence_sequence(0.5 + 0.01 * dice.uniform(size=500), 10_000)
    assert narrow[1][-1] - narrow[0][-1] < 0.5 * (wide[1][-1] - wide[0][-1])


def told_after(one: np.ndarray, other: np.ndarray, margin: float = 0.0) -> tuple[int, Standing]:
    """Look after every docs-th part, as rounds do, until the verdict is there: after how many docs, and which."""
    order = [str(doc) for doc in range(len(one))]
    named = [dict(zip(order, map(float, values), strict=True)) for values in (one, other)]
    found = Standing("other", "open", 0, -1, 1)
    for seen in range(30, len(order) + 1, 10):
        known = {doc: named[0][doc] for doc in order[:seen]}
        found = standing("other", known, named[1], order, margin=margin)
        if found.verdict != "open":
            break
    return found.docs, found


def test_models_that_are_nearly_alike_are_told_apart_wrongly_no_more_often_than_promised() -> None:
    """The verdict is about the whole benchmark: errors are counted over every stop."""
    dice, wrong, runs = np.random.default_rng(2), 0, 100
    for _ in range(runs):
        a, b = answers(dice, 300, 0.62, 0.6)
        _, found = told_after(a, b)
        truth = "alike" if a.mean() == b.mean() else "above" if a.mean() > b.mean() else "below"
        wrong += found.verdict not in (truth, "open")
    assert wrong / runs <= 0.05


def test_models_far_apart_are_told_after_a_part_of_the_docs() -> None:
    strong, weak = answers(np.random.default_rng(3), 1000, 0.8, 0.4)
    docs, found = told_after(strong, weak)
    assert found.verdict == "above"
    assert docs < 300
    assert found.low <= strong.mean() - weak.mean() <= found.high
    assert told_after(weak, strong)[1].verdict == "below"


def test_equal_models_are_told_alike_with_the_last_doc_and_within_a_margin_sooner() -> None:
    dice = np.random.default_rng(4)
    a = answers(dice, 1500, 0.6)[0]
    b = a.copy()
    flips = dice.choice(1500, 30, replace=False)
    b[flips[:15]], b[flips[15:]] = 1 - a[flips[:15]], 1 - a[flips[15:]]
    if a.mean() == b.mean():
        assert told_after(a, a.copy())[0] == 1500
    docs, found = told_after(a, b, margin=0.05)
    assert (found.verdict, docs < 1300) == ("alike", True)


def test_only_docs_of_both_count_and_few_decide_nothing() -> None:
    order = [str(doc) for doc in range(100)]
    own, other = dict.fromkeys(order[:29], 1.0), dict.fromkeys(order, 0.0)
    assert standing("base", own, other, order).verdict == "open"
    assert standing("base", {}, other, order) == Standing("base", "open", 0, -1.0, 1.0)
    own, other = dict.fromkeys(order[:60], 1.0), dict.fromkeys(order[:50], 0.0)
    assert standing("base", own, other, order).docs == 50


def test_a_standing_says_what_it_is() -> None:
    assert str(Standing("base", "above", 60, 0.1, 0.3)) == "above base (+0.100 to +0.300)"
    assert str(Standing("base", "open", 60, -0.1, 0.3)) == "not told apart from base (-0.100 to +0.300)"


def test_other_ranges() -> None:
    low, high = confidence_sequence([-3.0, 5.0], 2, least=-5, most=5)
    assert low[-1] == pytest.approx(1) == high[-1]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        confidence_sequence([0.5, 1.5], 10)
    with pytest.raises(ValueError, match="3 values of 2 docs"):
        confidence_sequence([0, 0, 0], 2)
