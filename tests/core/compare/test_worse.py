"""One answer to "did it get worse": the alert after a run, the history's mark and `steelyard compare` say the same."""

import hashlib
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.board.history import drops, history
from core.compare.between import compare_sides
from core.results import Store, open_store
from core.sample import Cell, Sample, Score, Scoring

Marks = dict[tuple[str, str], str]  # by model and benchmark

RUNS = ("r1", "r2", "r3", "r4")


def flipped(docs: int, right: int, lost: int, gained: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values before and after, of which so many docs were lost and gained."""
    before = np.repeat([1.0, 0.0], [right, docs - right])
    after = before.copy()
    after[:lost], after[docs - gained :] = 0.0, 1.0
    return before, after


CHANGES = {
    "paired alone": flipped(200, right=100, lost=12, gained=0),  # few docs changed, all one way
    "independent alone": flipped(100, right=50, lost=50, gained=36),  # all docs changed, both ways
    "uncorrected": flipped(40, right=26, lost=14, gained=4),
    "better": flipped(200, right=100, lost=0, gained=12),
}


def store_cell(store: Store, model: str, run: str, benchmark: str, values: NDArray[np.float64]) -> str:
    samples = tuple(Sample(benchmark, doc, "{}", "", (), "", value=float(value)) for doc, value in enumerate(values))
    stderr = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    score = Score(benchmark, "acc", "none", float(np.mean(values)), stderr, len(values), True, primary=True)
    fingerprint = hashlib.sha256(f"{model} {run} {benchmark}".encode()).hexdigest()
    cell = Cell(fingerprint, model, benchmark, {"checkpoint": f"{model} {run}", "revision": f"rev-{run}"})
    store.commit(cell, Scoring(samples, (score,), score), {})
    return fingerprint


def ask(store: Store, run: str, model: str, cells: dict[str, str]) -> None:
    store.write_model_run("nightly", run, {"model": model, "cells": cells})


def sigmas(store: Store, benchmark: str) -> float:
    """By how many standard errors a score is lower, its two values taken as independent: what alerts once went by."""
    heads = {
        record["settings"]["revision"]: record["headline"]
        for record in store.commit_records().values()
        if record["benchmark"] == benchmark
    }
    before, after = heads["rev-r1"], heads["rev-r2"]
    return float((before["value"] - after["value"]) / math.hypot(before["stderr"], after["stderr"]))


def alerts(store: Store, before: str, after: str) -> set[tuple[str, str]]:
    runs = {run["run"]: run for run in store.campaigns("nightly")}
    return {(drop.model, drop.benchmark) for drop in drops(store, runs[before], runs[after])}


def compared(store: Store, a: str, b: str) -> Marks:
    rows = compare_sides(store, a, b, flips=0).rows
    return {
        (row["model_b"], row["benchmark"]): row["change"]
        for row in rows.to_dict("records")
        if row["fingerprint_a"] != row["fingerprint_b"]
    }


def worse(marks: Marks) -> set[tuple[str, str]]:
    return {cell for cell, change in marks.items() if change == "worse"}


def test_where_independent_errors_contradict_a_paired_test_all_three_go_by_the_paired_test(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for place, run in enumerate(RUNS[:2]):
        cells = {name: store_cell(store, "m", run, name, values[place]) for name, values in CHANGES.items()}
        ask(store, run, "m", cells)
        few = flipped(200, right=100, lost=6, gained=0)[place]  # p = 0.03, the only benchmark of its model
        ask(store, run, "other", {"few": store_cell(store, "other", run, "few", few)})
    assert sigmas(store, "paired alone") < 2.0  # a drop that independent errors hide
    assert min(sigmas(store, "independent alone"), sigmas(store, "uncorrected")) > 2.0  # drops that they feign

    marks = compared(store, "m@rev-r1", "m@rev-r2")
    by_name = {benchmark: change for (_, benchmark), change in marks.items()}
    assert by_name == {"better": "better", "independent alone": "", "paired alone": "worse", "uncorrected": ""}
    rows = compare_sides(store, "m@rev-r1", "m@rev-r2", benchmarks=["uncorrected"]).rows
    assert rows["change"].tolist() == ["worse"]  # were it the one question asked

    marks |= compared(store, "other@rev-r1", "other@rev-r2")
    assert marks["other", "few"] == "worse"
    assert compared(store, "campaign:nightly@r1", "campaign:nightly@r2") == marks
    assert alerts(store, "r1", "r2") == worse(marks)
    frame = history(store)
    later = frame[frame["run"] == "r2"]
    assert dict(zip(zip(later["model"], later["benchmark"], strict=True), later["change"], strict=True)) == marks


@pytest.mark.parametrize("seed", range(2))
def test_over_many_runs_of_several_models_all_three_agree(tmp_path: Path, seed: int) -> None:
    store, rng = open_store(str(tmp_path)), np.random.default_rng(seed)
    values = rng.integers(0, 2, (2, 3, 60)).astype(float)  # models, benchmarks, docs
    cells: dict[str, dict[str, str]] = {"m0": {}, "m1": {}}
    for run in RUNS:
        for number, model in enumerate(cells):
            for place in range(3):
                if run != "r1" and rng.random() < 0.2:
                    continue  # nothing new: the run before's cell
                lost = (values[number, place] == 1.0) & (rng.random(60) < 0.2)
                values[number, place] = np.where(lost, 0.0, values[number, place])
                if rng.random() < 0.3:
                    values[number, place] = rng.permutation(values[number, place])
                cells[model][f"b{place}"] = store_cell(store, model, run, f"b{place}", values[number, place])
            ask(store, run, model, cells[model])
    seen = 0
    frame = history(store, "nightly").fillna({"since": ""})
    for before, after in pairwise(RUNS):
        marks = compared(store, f"campaign:nightly@{before}", f"campaign:nightly@{after}")
        assert alerts(store, before, after) == worse(marks)
        for row in frame[frame["run"] == after].to_dict("records"):
            # Against an earlier revision than the one before is told where the last step alone is no change.
            assert marks[row["model"], row["benchmark"]] == ("" if row["since"] else row["change"])
            seen += row["change"] != ""
    assert seen
