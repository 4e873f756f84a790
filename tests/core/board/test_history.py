"""Histories: revisions in order, and changes where paired tests say so."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from core.board.history import drops, history
from core.board.select import Selection
from core.board.text import history_table
from core.errors import UserError
from core.results import Store, open_store
from core.sample import Cell, Sample, Score, Scoring

DOCS = 200


def commit(
    store: Store,
    number: int,
    values: Sequence[float | None],
    run: str | None = None,
    *,
    lower: bool = False,
    metric: str = "acc",
) -> None:
    samples = tuple(Sample("gsm8k", place, "{}", "", (), "", value=value) for place, value in enumerate(values))
    mean = float(np.mean([value or 0.0 for value in values]))
    score = Score("gsm8k", metric, "none", mean, 0.1, DOCS, higher_is_better=not lower, primary=True)
    cell = Cell(f"{number:064x}", "line", "gsm8k", {"checkpoint": str(number), "revision": f"rev-{number}"})
    store.commit(cell, Scoring(samples, (score,), score), {})
    if run is not None:
        store.write_model_run("nightly", run, {"model": "line", "cells": {"gsm8k": cell.fingerprint}})


def right(count: int) -> list[float]:
    return [1.0] * count + [0.0] * (DOCS - count)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def test_each_revision_is_tested_against_the_one_before(store: Store) -> None:
    counts = [100, 102, 104, 112, 113, 60, 61]
    for number, count in enumerate(counts):
        commit(store, number, right(count), f"r{number}")
    store.write_model_run("nightly", "r9", {"model": "line", "cells": {"gsm8k": f"{6:064x}"}})  # computed before
    frame = history(store, "nightly").sort_values("run")
    assert frame["revision"].tolist() == [f"rev-{number}" for number in range(7)]
    assert frame["change"].tolist() == ["", "", "", "better", "", "worse", ""]
    assert frame["difference"].tolist()[1:] == pytest.approx([0.01, 0.01, 0.04, 0.005, -0.265, 0.005])
    assert frame["p"].iloc[3] == pytest.approx(scipy.stats.binomtest(8, 8).pvalue)  # 112 of 104: 8 gained and none lost
    assert frame["since"].isna().all()
    low, high = scipy.stats.binomtest(100, DOCS).proportion_ci(0.95, method="wilson")
    assert frame[["low", "high"]].iloc[0].tolist() == pytest.approx([low, high])


def test_slow_drift_is_told_from_the_first_revision_since_the_last_change(store: Store) -> None:
    for number, count in enumerate([100, 97, 94, 93]):
        commit(store, number, right(count), f"r{number}")
    frame = history(store, "nightly")
    assert frame["change"].tolist() == ["", "", "worse", ""]  # three lost, three lost, one lost
    assert frame["since"].fillna("").tolist() == ["", "", "rev-0", ""]
    assert frame["p"].iloc[2] == pytest.approx(scipy.stats.binomtest(6, 6).pvalue)
    assert "| **▼ worse since rev-0** |" in history_table(frame).markdown()


def test_lower_scores_are_better_where_the_metric_says_so(store: Store) -> None:
    for number, count in enumerate((100, 40)):
        commit(store, number, right(count), f"r{number}", lower=True)
    assert history(store)["change"].tolist() == ["", "better"]


def test_cells_that_no_run_names_have_a_history_too(store: Store) -> None:
    for number, count in enumerate((100, 40)):
        commit(store, number, right(count))
    frame = history(store, selection=Selection(models=["li*"]))
    assert sorted(frame["score"]) == [0.2, 0.5]
    assert frame["campaign"].isna().all()


def test_markdown_marks_changes(store: Store) -> None:
    for number, count in enumerate((100, 40)):
        commit(store, number, right(count), f"r{number}")
    text = history_table(history(store)).markdown()
    assert "| rev-1 | **0.2000** |" in text
    assert "| -0.3000 | <0.0001 | **▼ worse** |" in text


def test_a_campaign_that_there_is_not_is_refused(store: Store) -> None:
    commit(store, 0, right(100), "r0")
    with pytest.raises(UserError, match="--campaign 'nightl': no such campaign — did you mean 'nightly'?"):
        history(store, "nightl")


def dropped(store: Store) -> list[str]:
    return [str(drop) for drop in drops(store, *store.campaigns("nightly")[-2:])]


def test_a_score_that_got_worse_since_the_run_before_is_a_drop(store: Store) -> None:
    for number, count in enumerate((100, 90, 120)):
        commit(store, number, right(count), f"r{number}")
        if number == 1:
            assert dropped(store) == ["line on gsm8k: acc 0.5000 → 0.4500 (p = 0.0020)"]  # 10 lost and none gained
    assert not dropped(store)


def test_where_less_is_better_a_rise_is_a_drop(store: Store) -> None:
    for number, count in enumerate((100, 200)):
        commit(store, number, right(count), f"r{number}", lower=True)
    assert dropped(store) == ["line on gsm8k: acc 0.5000 → 1.0000 (p <0.0001)"]


def test_what_cannot_be_compared_is_no_drop(store: Store) -> None:
    commit(store, 0, right(150), "r0")
    store.write_model_run("nightly", "r1", {"model": "line", "cells": {"gsm8k": f"{0:064x}"}})  # the same cell
    assert not dropped(store)
    store.write_model_run("nightly", "r2", {"model": "line", "cells": {"gsm8k": "f" * 64}})  # not complete
    assert not dropped(store)
    commit(store, 1, right(50), "r3")
    assert not dropped(store)  # nor was the run before
    commit(store, 2, right(10), "r4", metric="exact_match")
    assert not dropped(store)
    commit(store, 3, [None] * DOCS, "r5", metric="exact_match")  # a score that is no mean of values per doc
    assert not dropped(store)


def test_samples_that_are_gone_are_said_and_no_drop(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    for number, count in enumerate((100, 10)):
        commit(store, number, right(count), f"r{number}")
    for path in (Path(store.uri) / "samples").rglob("*.parquet"):
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert not dropped(store)
    assert "line is not compared with the run before" in caplog.text
