"""Two sides compared from a store: numbers are scipy's and statsmodels' on the same pairs; flipped docs have their texts."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from core.compare.between import SidesComparison, check_bounds, compare_sides, regressions
from core.errors import UserError
from core.results import Store, open_store
from core.sample import Cell, Sample, Score, Scoring
from tests.core.store_parts import METADATA

RNG = np.random.default_rng(7)
RIGHT_A = RNG.integers(0, 2, 200).astype(float)
RIGHT_B = np.where(RNG.random(200) < 0.7, RIGHT_A, 1.0 - RIGHT_A)
GRADED_A = RNG.random(120)
GRADED_B = np.clip(GRADED_A + RNG.normal(0.05, 0.1, 120), 0.0, 1.0)
PASSAGES = RNG.integers(0, 50, 120)


def store_cell(
    store: Store,
    model: str,
    benchmark: str,
    values: Sequence[float],
    *,
    higher_is_better: bool = True,
    clusters: Sequence[int] | None = None,
    seed: int = 0,
) -> None:
    samples = tuple(
        Sample(
            task=benchmark,
            doc_id=place,
            doc=json.dumps({"passage": int(clusters[place]) if clusters is not None else place}),
            prompt=f"prompt {place}",
            choices=(),
            target="4",
            texts=(f"{model} says {place}",),
            reasoning=(f"{model} thinks",),
            value=float(value),
        )
        for place, value in enumerate(values)
    )
    score = Score(benchmark, "acc", "none", float(np.mean(values)), 0.1, len(values), higher_is_better, primary=True)
    settings = {"checkpoint": f"digest of {model}", "revision": f"{model}-1", "dtype": "float32", "seed": seed}
    fingerprint = hashlib.sha256(f"{model} {benchmark}".encode()).hexdigest()
    metadata = {**METADATA, "cluster": "passage"} if clusters is not None else METADATA
    store.commit(Cell(fingerprint, model, benchmark, settings), Scoring(samples, (score,), score), metadata)


@pytest.fixture
def found(tmp_path: Path) -> SidesComparison:
    store = open_store(str(tmp_path))
    for model, right, graded in (("old", RIGHT_A, GRADED_A), ("new", RIGHT_B, GRADED_B)):
        store_cell(store, model, "right", right.tolist(), seed=len(model))
        store_cell(store, model, "graded", graded.tolist())
        store_cell(store, model, "passages", graded.tolist(), clusters=PASSAGES.tolist())
    store_cell(store, "old", "gone", [1.0])
    return compare_sides(store, "old", "new")


def row_of(found: SidesComparison, benchmark: str) -> dict[str, Any]:
    (row,) = found.rows[found.rows["benchmark"] == benchmark].to_dict("records")
    return {str(name): value for name, value in row.items()}


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def test_right_and_wrong_is_statsmodels_mcnemar(found: SidesComparison) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    row = row_of(found, "right")
    gained, lost = int((RIGHT_B > RIGHT_A).sum()), int((RIGHT_B < RIGHT_A).sum())
    table = [[int((RIGHT_A * RIGHT_B).sum()), lost], [gained, int(((1 - RIGHT_A) * (1 - RIGHT_B)).sum())]]
    assert row["p"] == close(mcnemar(table, exact=True).pvalue)
    assert (row["gained"], row["lost"], row["docs"]) == (gained, lost, 200)
    assert row["difference"] == close(RIGHT_B.mean() - RIGHT_A.mean())


def test_graded_values_are_scipys_paired_t(found: SidesComparison) -> None:
    row, wanted = row_of(found, "graded"), scipy.stats.ttest_rel(GRADED_B, GRADED_A)
    low, high = wanted.confidence_interval(0.95)
    assert (row["difference"], row["p"]) == (close((GRADED_B - GRADED_A).mean()), close(wanted.pvalue))
    assert (row["low"], row["high"]) == (close(low), close(high))


def test_docs_in_clusters_are_statsmodels_cluster_robust_t(found: SidesComparison) -> None:
    from statsmodels.api import OLS

    ols = OLS(GRADED_B - GRADED_A, np.ones(len(GRADED_A)))
    # Ours has G/(G - 1) as small-sample factor, statsmodels' with df_correction=False none
    plain = ols.fit(cov_type="cluster", cov_kwds={"groups": PASSAGES, "use_correction": False})
    groups = len(np.unique(PASSAGES))
    error = plain.bse[0] * math.sqrt(groups / (groups - 1))
    row = row_of(found, "passages")
    assert row["p"] == close(2 * scipy.stats.t.sf(abs(plain.params[0]) / error, groups - 1))
    assert row["method"] == "paired t, clusters"
    assert row["high"] - row["difference"] == close(scipy.stats.t.ppf(0.975, groups - 1) * error)


def test_p_values_are_corrected_over_all_rows_as_statsmodels_does(found: SidesComparison) -> None:
    from statsmodels.stats.multitest import multipletests

    assert found.rows["p_holm"].tolist() == close(multipletests(found.rows["p"], method="holm")[1])


def test_swapped_sides_give_the_same_numbers_the_other_way(found: SidesComparison, tmp_path: Path) -> None:
    swapped = compare_sides(open_store(str(tmp_path)), "new", "old")
    for benchmark in ("right", "graded", "passages"):
        one, other = row_of(found, benchmark), row_of(swapped, benchmark)
        assert other["difference"] == close(-one["difference"])
        assert (other["low"], other["high"]) == (close(-one["high"]), close(-one["low"]))
        assert (other["gained"], other["lost"], other["p"]) == (one["lost"], one["gained"], close(one["p"]))


def test_flipped_docs_come_both_ways_with_their_texts(found: SidesComparison) -> None:
    flips = found.flips[found.flips["benchmark"] == "right"]
    for change, docs in (("gained", np.flatnonzero(RIGHT_B > RIGHT_A)), ("lost", np.flatnonzero(RIGHT_B < RIGHT_A))):
        assert flips.loc[flips["change"] == change, "doc_id"].tolist() == docs.tolist()
    first = flips.iloc[0]
    assert (first["answer_a"], first["answer_b"]) == (f"old says {first['doc_id']}", f"new says {first['doc_id']}")
    assert (first["prompt"], first["target"], first["reasoning_b"]) == (f"prompt {first['doc_id']}", "4", "new thinks")


def test_of_graded_values_the_largest_changes_come_first_and_few_are_enough(
    found: SidesComparison, tmp_path: Path
) -> None:
    few = compare_sides(open_store(str(tmp_path)), "old", "new", benchmarks=["graded"], flips=3).flips
    change = (few["value_b"] - few["value_a"]).to_numpy()
    assert change[:3].tolist() == close(np.sort(GRADED_B - GRADED_A)[::-1][:3].tolist())
    assert change[3:].tolist() == close(np.sort(GRADED_B - GRADED_A)[:3].tolist())


def test_what_only_one_side_has_and_settings_that_differ_are_told(found: SidesComparison) -> None:
    assert (found.only_a, found.only_b) == (("new (B) has no gone, which old (A) has",), ())
    assert row_of(found, "right")["settings"] == ""
    assert row_of(found, "graded")["settings"] == ""


def test_lower_is_better_turns_gained_and_lost_and_the_gates(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store_cell(store, "old", "errors", [0.0] * 10 + [1.0] * 10, higher_is_better=False)
    store_cell(store, "new", "errors", [0.0] * 4 + [1.0] * 16, higher_is_better=False, seed=3)
    found = compare_sides(store, "old", "new")
    row = row_of(found, "errors")
    assert (row["difference"], row["gained"], row["lost"]) == (close(0.3), 0, 6)
    assert row["settings"] == "seed"
    assert set(found.flips["change"]) == {"lost"}
    assert regressions([row], fail_below={"": 0.9}, max_regression=None) == []
    (sentence,) = regressions([row], fail_below={"errors": 0.7}, max_regression=None)
    assert sentence == "new, errors: acc 0.8000 is worse than 0.7 (--fail-below)"
    (sentence,) = regressions([row], fail_below={}, max_regression=0.29)
    assert sentence == "new, errors: acc is 0.3000 worse, more than 0.29 (--max-regression)"
    assert regressions([row], fail_below={}, max_regression=0.3) == []


def test_only_a_significant_regression_counts_where_that_is_asked_for(found: SidesComparison) -> None:
    row = {**row_of(found, "right"), "difference": -0.05, "p_holm": 0.2}
    assert len(regressions([row], fail_below={}, max_regression=0.01)) == 1
    assert regressions([row], fail_below={}, max_regression=0.01, significant=True) == []
    assert len(regressions([{**row, "p_holm": 0.01}], fail_below={}, max_regression=0.01, significant=True)) == 1


def test_a_score_that_is_missing_holds_no_gate(found: SidesComparison) -> None:
    row = {**row_of(found, "right"), "score_b": math.nan, "difference": math.nan}
    broken = regressions([row], fail_below={"": 0.1}, max_regression=0.5)
    assert [each.partition(": ")[2] for each in broken] == [
        "there is no score (acc) to hold against 0.1 (--fail-below)",
        "there are no two scores (acc) to hold against 0.5 (--max-regression)",
    ]


def test_scores_without_values_per_doc_differ_by_their_scores_alone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for model, value in (("old", 20.0), ("new", 18.0)):
        samples = (Sample("prose", 0, "{}", "", (), "", value=None),)
        score = Score("prose", "word_perplexity", "none", value, None, 1, higher_is_better=False, primary=True)
        settings = {"checkpoint": model}
        cell = Cell(("a" if model == "old" else "b") * 64, model, "prose", settings)
        store.commit(cell, Scoring(samples, (replace(score),), score), METADATA)
    row = row_of(compare_sides(store, "old", "new"), "prose")
    assert (row["difference"], row["method"]) == (-2.0, "")
    assert math.isnan(row["p_holm"])


def test_bounds_are_numbers_of_benchmarks_that_are_compared() -> None:
    assert check_bounds(["0.5", "gsm8k=0.6"], ["gsm8k"]) == {"": 0.5, "gsm8k": 0.6}
    with pytest.raises(UserError, match="'half': use a number, or BENCHMARK=NUMBER"):
        check_bounds(["half"], ["gsm8k"])
    with pytest.raises(UserError, match="did you mean 'gsm8k'"):
        check_bounds(["gsm8=0.5"], ["gsm8k"])
