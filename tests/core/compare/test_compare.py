"""Leaderboards with intervals and letters, and pairs of models, from small frames and from a store."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.compare.compare import PAIR_COLUMNS, Comparison, compare, compare_store, not_compared
from core.compare.paired import compare_paired
from core.results import LEADERBOARD_COLUMNS, open_store
from core.sample import Scoring
from core.scoring.statistics import estimate, interval, wilson
from tests.core.store_parts import METADATA, make_cell, make_scoring

TOLERANCE = 1e-9
# Of 40 docs: the first model answers 36, the second 30 of those, the third 5.
ANSWERS = {"best": [1.0] * 36 + [0.0] * 4, "good": [1.0] * 30 + [0.0] * 10, "poor": [1.0] * 5 + [0.0] * 35}

Answers = Mapping[str, Sequence[float]]


def samples(answers: Answers, benchmark: str = "b", tasks: Sequence[str] | None = None, **columns: Any) -> pd.DataFrame:
    """One row per model and doc; docs are numbered within their task."""
    frames = []
    for model, values in answers.items():
        of_task = list(tasks or ["t"] * len(values))
        docs = [of_task[:place].count(task) for place, task in enumerate(of_task)]
        frame = pd.DataFrame({"task": of_task, "doc_id": docs, "value": list(values), **columns})
        frames.append(frame.assign(benchmark=benchmark, model=model, fingerprint=f"{benchmark}/{model}"))
    return pd.concat(frames)


def board(scores: Mapping[str, float | None], benchmark: str = "b", **columns: Any) -> pd.DataFrame:
    rows = [{"model": model, "score": score, "fingerprint": f"{benchmark}/{model}"} for model, score in scores.items()]
    common = {"benchmark": benchmark, "metric": "acc", "filter": "none", "higher_is_better": True, "docs": 40}
    return pd.DataFrame([{**common, **row, **columns} for row in rows], columns=list(LEADERBOARD_COLUMNS))


def means(answers: Answers) -> dict[str, float | None]:
    return {model: float(np.nanmean(values)) for model, values in answers.items()}


def pair(found: Comparison, a: str, b: str) -> dict[str, Any]:
    pairs = found.pairs
    (row,) = pairs[(pairs["model_a"] == a) & (pairs["model_b"] == b)].to_dict("records")
    return {str(name): value for name, value in row.items()}


def letters(found: Comparison) -> dict[str, str | None]:
    return dict(zip(found.board["model"], found.board["letters"], strict=True))


def close(value: object) -> object:
    return pytest.approx(value, abs=TOLERANCE)


def test_every_two_models_are_compared_the_better_one_first() -> None:
    found = compare(samples(ANSWERS), board(means(ANSWERS)))
    assert list(found.pairs.columns) == list(PAIR_COLUMNS)
    assert list(zip(found.pairs["model_a"], found.pairs["model_b"], strict=True)) == [
        ("best", "good"),
        ("best", "poor"),
        ("good", "poor"),
    ]
    row = pair(found, "best", "good")
    assert (row["difference"], row["p"], row["docs"]) == (close(6 / 40), close(2 / 2**6), 40)
    assert (row["wins"], row["losses"], row["ties"], row["method"]) == (6, 0, 34, "McNemar")


def test_p_values_are_corrected_over_all_pairs_of_the_table() -> None:
    frames = [samples(ANSWERS, "x"), samples(ANSWERS, "y")]
    found = compare(pd.concat(frames), pd.concat([board(means(ANSWERS), "x"), board(means(ANSWERS), "y")]))
    assert len(found.pairs) == 6
    # Four pairs are far below; of the two at 2/64 the smaller rank counts twice.
    assert pair(compare(frames[0], board(means(ANSWERS), "x")), "best", "good")["p_holm"] == close(2 / 64)
    same = found.pairs[(found.pairs["model_a"] == "best") & (found.pairs["model_b"] == "good")]
    assert same["p_holm"].tolist() == close([4 / 64, 4 / 64])


def test_models_share_a_letter_unless_their_corrected_difference_is_significant() -> None:
    assert letters(compare(samples(ANSWERS), board(means(ANSWERS)))) == {"best": "a", "good": "b", "poor": "c"}
    fewer = {**ANSWERS, "good": [1.0] * 31 + [0.0] * 9}  # 5 to 0: p = 1/16
    assert letters(compare(samples(fewer), board(means(fewer)))) == {"best": "a", "good": "a", "poor": "b"}


def test_each_row_has_its_interval() -> None:
    found = compare(samples(ANSWERS), board(means(ANSWERS))).board.set_index("model")
    assert (found.loc["good", "low"], found.loc["good", "high"]) == close(wilson(0.75, 40))


def test_the_leaderboard_keeps_its_rows_and_their_order() -> None:
    given = board(dict(reversed(means(ANSWERS).items())))
    given.index = pd.Index([7, 7, 9])
    found = compare(samples(ANSWERS), given).board
    pd.testing.assert_frame_equal(found[list(given.columns)], given)
    assert found["letters"].tolist() == ["c", "b", "a"]


def test_a_group_weighted_by_size_is_tested_on_all_docs() -> None:
    tasks = ["large"] * 30 + ["small"] * 10
    found = compare(samples(ANSWERS, tasks=tasks), board(means(ANSWERS)))
    assert pair(found, "best", "good")["method"] == "McNemar"
    row = found.board.set_index("model").loc["good"]
    assert (row["low"], row["high"]) == close(interval(ANSWERS["good"], tasks=tasks))


def test_a_group_whose_tasks_weigh_the_same_is_tested_on_their_mean() -> None:
    tasks = ["large"] * 30 + ["small"] * 10
    scores = {m: estimate(values, tasks=tasks, weights="tasks").value for m, values in ANSWERS.items()}
    found = compare(samples(ANSWERS, tasks=tasks), board(scores))
    row = pair(found, "best", "good")
    wanted = compare_paired(ANSWERS["best"], ANSWERS["good"], tasks=tasks, weights="tasks")
    assert row["difference"] == close((30 / 30 + 6 / 10) / 2 - (30 / 30 + 0) / 2) == close(wanted.difference)
    assert (row["p"], row["method"]) == (close(wanted.p_value), wanted.method)


def test_docs_of_one_number_in_two_tasks_are_two_docs() -> None:
    answers = {"x": [1.0, 0.0], "y": [0.0, 1.0]}
    row = pair(compare(samples(answers, tasks=["t", "u"]), board(means(answers))), "x", "y")
    assert (row["docs"], row["wins"], row["losses"]) == (2, 1, 1)


def test_a_score_that_is_no_mean_of_its_docs_is_not_compared() -> None:
    perplexity = samples({"x": [math.nan] * 4, "y": [math.nan] * 4}, "prose")
    found = compare(
        pd.concat([samples(ANSWERS), perplexity]),
        pd.concat([board(means(ANSWERS)), board({"x": 9.0, "y": 8.0}, "prose")]),
    )
    assert set(found.pairs["benchmark"]) == {"b"}
    assert not_compared(found) == ["prose"]
    prose = found.board[found.board["benchmark"] == "prose"]
    assert prose["low"].isna().all()
    assert prose["letters"].tolist() == [None, None]


def test_a_model_without_a_score_leaves_the_others_compared() -> None:
    found = compare(samples(ANSWERS), board({**means(ANSWERS), "good": None}))
    assert letters(found) == {"best": "a", "good": None, "poor": "b"}
    assert len(found.pairs) == 1


def test_docs_that_only_one_model_has_a_value_for_are_left_out_and_counted() -> None:
    answers = {"x": [1.0, 1.0, 1.0, math.nan, 0.0], "y": [0.0, 1.0, math.nan, math.nan, 0.0]}
    row = pair(compare(samples(answers), board(means(answers))), "x", "y")
    assert (row["docs"], row["left_out"], row["wins"], row["ties"]) == (3, 2, 1, 2)


def test_models_with_no_common_doc_share_a_letter_and_have_no_numbers() -> None:
    frame = pd.concat([samples({"x": [1.0, 1.0]}, tasks=["t", "t"]), samples({"y": [0.0, 0.0]}, tasks=["u", "u"])])
    found = compare(frame, board({"x": 1.0, "y": 0.0}))
    row = pair(found, "x", "y")
    assert (row["docs"], row["left_out"], row["method"]) == (0, 4, "no common doc")
    assert math.isnan(row["p_holm"])
    assert letters(found) == {"x": "a", "y": "a"}


def test_where_lower_is_better_the_lower_model_wins() -> None:
    answers = {"x": [0.1, 0.2, 0.3], "y": [0.3, 0.3, 0.2]}
    row = pair(compare(samples(answers), board(means(answers), higher_is_better=False)), "x", "y")
    assert row["difference"] == close(-0.2 / 3)
    assert (row["wins"], row["losses"]) == (2, 1)


def test_two_metrics_of_one_benchmark_are_not_compared_with_each_other() -> None:
    given = board(means(ANSWERS))
    given.loc[given["model"] == "poor", "metric"] = "f1"
    assert len(compare(samples(ANSWERS), given).pairs) == 1


def test_two_cells_of_one_model_are_two_models() -> None:
    frame = pd.concat([samples({"m": ANSWERS["best"]}), samples({"m": ANSWERS["poor"]}).assign(fingerprint="other")])
    given = pd.concat([board({"m": 0.9}), board({"m": 0.125}).assign(fingerprint="other")])
    found = compare(frame, given)
    assert found.pairs[["fingerprint_a", "fingerprint_b"]].to_numpy().tolist() == [["b/m", "other"]]
    assert found.board["letters"].tolist() == ["a", "b"]


def test_a_named_cluster_makes_its_docs_one() -> None:
    docs = [json.dumps({"passage": place // 4}) for place in range(40)]
    given = board(means(ANSWERS), cluster="passage")
    found = compare(samples(ANSWERS, doc=docs), given)
    wanted = compare_paired(ANSWERS["best"], ANSWERS["good"], clusters=[place // 4 for place in range(40)])
    row = pair(found, "best", "good")
    assert (row["p"], row["method"]) == (close(wanted.p_value), "sign flips, clusters")
    alone = compare(samples(ANSWERS), board(means(ANSWERS))).board
    assert (found.board["high"] - found.board["low"] > alone["high"] - alone["low"]).all()


def test_the_order_of_samples_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    answers = {model: rng.random(40).tolist() for model in "xyz"}
    frame, given = samples(answers), board(means(answers))
    one, other = compare(frame, given), compare(frame.sample(frac=1.0, random_state=1), given)
    pd.testing.assert_frame_equal(one.pairs, other.pairs)
    pd.testing.assert_frame_equal(one.board, other.board)


def test_without_samples_the_leaderboard_stands_as_it_is() -> None:
    found = compare(pd.DataFrame(), board(means(ANSWERS)))
    assert found.pairs.empty
    assert found.board["low"].isna().all()
    assert found.board["letters"].tolist() == [None] * 3
    nothing = compare(pd.DataFrame(), board({}))
    assert nothing.board.empty
    assert not_compared(nothing) == []


def scoring(values: Sequence[float]) -> Scoring:
    base = make_scoring(docs=len(values))
    filled = tuple(
        replace(sample, value=value, doc=json.dumps({"passage": sample.doc_id // 2}))
        for sample, value in zip(base.samples, values, strict=True)
    )
    headline = replace(base.headline, value=sum(values) / len(values))
    return Scoring(samples=filled, scores=(headline,), headline=headline)


def test_a_store_is_compared_from_what_it_holds(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for fingerprint, model, benchmark in (
        ("a", "best", "gsm8k"),
        ("b", "poor", "gsm8k"),
        ("c", "best", "passages"),
        ("d", "poor", "passages"),
    ):
        metadata = {**METADATA, "cluster": "passage" if benchmark == "passages" else None}
        store.commit(make_cell(fingerprint, model, benchmark), scoring(ANSWERS[model]), metadata)
    found = compare_store(store)
    assert found.pairs.set_index("benchmark")["method"].to_dict() == {
        "gsm8k": "McNemar",
        "passages": "sign flips, clusters",
    }
    assert found.board["letters"].notna().all()


def test_damaged_samples_leave_the_leaderboard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(str(tmp_path))
    store.commit(make_cell("a", "best"), scoring(ANSWERS["best"]), METADATA)
    (file,) = (tmp_path / "samples").rglob("*.parquet")
    file.unlink()
    found = compare_store(store)
    assert found.board["score"].tolist() == [0.9]
    assert found.board["low"].isna().all()
    assert "no intervals and no comparisons" in caplog.text
