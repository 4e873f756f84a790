"""Histories: revisions in order, and changes where paired tests say so."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from core.board.select import Selection
from core.compare.describe_history import history_table
from core.compare.history import history
from core.errors import UserError
from core.results import Store, open_store
from core.sample import Cell, Sample, Score, Scoring

DOCS = 200


def commit(store: Store, number: int, values: list[float], run: str | None = None, *, lower: bool = False) -> None:
    samples = tuple(Sample("gsm8k", place, "{}", "", (), "", value=value) for place, value in enumerate(values))
    score = Score("gsm8k", "acc", "none", float(np.mean(values)), 0.1, DOCS, higher_is_better=not lower, primary=True)
    cell = Cell(f"{number:064x}", "line", "gsm8k", {"checkpoint": str(number), "revision": f"rev-{number}"})
    store.commit(cell, Scoring(samples, (score,), score), {})
    if run is not None:
        store.write_model_run("nightly", run, {"model": "line", "cells": {"gsm8k": cell.fingerprint}})


def right(count: int) -> list[float]:
    return [1.0] * count + [0.0] * (DOCS - count)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def test_changes_are_marked_against_the_first_revision_since_the_last(store: Store) -> None:
    counts = [100, 102, 104, 112, 113, 60, 61]
    for number, count in enumerate(counts):
        commit(store, number, right(count), f"r{number}")
    store.write_model_run("nightly", "r9", {"model": "line", "cells": {"gsm8k": f"{6:064x}"}})  # computed before
    frame = history(store, "nightly").sort_values("run")
    assert frame["revision"].tolist() == [f"rev-{number}" for number in range(7)]
    # 112 of 100: 12 gained and none lost; McNemar 2/2^12 against 5% / 6
    assert frame["change"].tolist() == ["", "", "", "better", "", "worse", ""]
    assert frame["difference"].tolist()[1:] == pytest.approx([0.01, 0.02, 0.06, 0.005, -0.26, 0.005])
    assert frame["p"].iloc[3] == pytest.approx(scipy.stats.binomtest(12, 12).pvalue)
    low, high = scipy.stats.binomtest(100, DOCS).proportion_ci(0.95, method="wilson")
    assert frame[["low", "high"]].iloc[0].tolist() == pytest.approx([low, high])


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
