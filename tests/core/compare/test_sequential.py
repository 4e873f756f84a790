import numpy as np
import pytest

from core.compare.sequential import confidence_sequence, ranking


def answers(dice: np.random.Generator, docs: int, *scores: float) -> list[np.ndarray]:
    """Right and wrong of models on the same docs: what is hard for one is hard for the others."""
    hardness = dice.uniform(size=docs)
    return [((0.7 * hardness + 0.3 * dice.uniform(size=docs)) < score).astype(float) for score in scores]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_the_mean_of_all_docs_is_inside_at_every_number_of_docs_as_often_as_promised(share: float) -> None:
    dice, docs, missed = np.random.default_rng(1), 400, 0
    for _ in range(400):
        values = (dice.uniform(size=docs) < share).astype(float)
        known = confidence_sequence(values, docs, alpha=0.1)
        missed += bool(((known.low > values.mean() + 1e-9) | (known.high < values.mean() - 1e-9)).any())
    assert missed / 400 <= 0.1 + 0.03


def test_intervals_shrink_to_the_mean() -> None:
    values = np.random.default_rng(0).uniform(size=300)
    known = confidence_sequence(values, 300)
    assert (np.diff(known.low) >= 0).all()
    assert (np.diff(known.high) <= 0).all()
    assert known.low[-1] == pytest.approx(values.mean())
    assert known.high[-1] == pytest.approx(values.mean())
    assert known.high[99] - known.low[99] < 0.4


def test_few_values_that_vary_little_say_more() -> None:
    dice = np.random.default_rng(0)
    wide = confidence_sequence(dice.integers(0, 2, 500), 10_000)
    narrow = confidence_sequence(0.5 + 0.01 * dice.uniform(size=500), 10_000)
    assert narrow.high[-1] - narrow.low[-1] < 0.5 * (wide.high[-1] - wide.low[-1])


def test_models_that_are_alike_are_ranked_wrongly_no_more_often_than_promised() -> None:
    """The order that is announced is that of the whole benchmark: errors are counted over every stop."""
    dice, wrong, runs = np.random.default_rng(2), 0, 200
    for _ in range(runs):
        a, b = answers(dice, 500, 0.62, 0.6)
        verdict = ranking({"a": a, "b": b}, 500)
        if verdict.after is not None and verdict.after < 500:
            truth = ("a", "b") if a.mean() > b.mean() else ("b", "a")
            wrong += verdict.order != truth
    assert wrong / runs <= 0.05


def test_models_far_apart_are_told_after_a_part_of_the_docs() -> None:
    dice = np.random.default_rng(3)
    strong, weak, poor = answers(dice, 2000, 0.8, 0.5, 0.2)
    verdict = ranking({"poor": poor, "strong": strong, "weak": weak}, 2000)
    assert verdict.order == ("strong", "weak", "poor")
    assert verdict.saved > 0.7
    best = ranking({"poor": poor, "strong": strong, "weak": weak}, 2000, top=1)
    assert best.order[0] == "strong"
    assert best.after is not None
    assert verdict.after is not None
    assert best.after <= verdict.after


def test_equal_models_are_never_told_apart_and_are_within_a_margin_soon() -> None:
    dice = np.random.default_rng(4)
    a = answers(dice, 3000, 0.6)[0]
    b = a.copy()
    flips = dice.choice(3000, 60, replace=False)
    b[flips[:30]], b[flips[30:]] = 1 - a[flips[:30]], 1 - a[flips[30:]]
    assert ranking({"a": a[:2000], "b": b[:2000]}, 3000).after is None
    assert (ranking({"a": a, "b": b}, 3000, margin=0.05).after or 3000) < 2500


def test_one_model_has_nothing_to_be_ranked_against() -> None:
    assert ranking({"a": [1.0] * 40}, 100).after == 30
    assert ranking({"a": [1.0], "b": [0.0]}, 100).after is None


def test_other_ranges() -> None:
    known = confidence_sequence([-3.0, 5.0], 2, least=-5, most=5)
    assert known.low[-1] == pytest.approx(1) == known.high[-1]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        confidence_sequence([0.5, 1.5], 10)
    with pytest.raises(ValueError, match="3 values of 2 docs"):
        confidence_sequence([0, 0, 0], 2)
    with pytest.raises(ValueError, match="same docs"):
        ranking({"a": [1.0], "b": [1.0, 0.0]}, 10)
