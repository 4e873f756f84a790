"""``steelyard results`` on a part of a store, and in every format; ``steelyard report``."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from core.results import open_store
from tests.core.compare.test_between import store_cell
from tests.core.report.test_html import Page, fill

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path) -> str:
    opened = open_store(str(tmp_path / "store"))
    for model, right in (("best_1", 38), ("poor#2", 3)):
        for benchmark in ("gsm8k", "aime24", "prose"):
            store_cell(opened, model, benchmark, [1.0] * right + [0.0] * (40 - right))
    return opened.uri


def test_filters_leave_what_was_asked_for(steelyard: Run, store: str) -> None:
    def rows(*arguments: str) -> list[tuple[str, str]]:
        out = steelyard("results", store, "--format", "json", *arguments)[1]
        return sorted((row["benchmark"], row["model"]) for row in map(json.loads, out.splitlines()))

    assert rows("--benchmark", "gsm8k", "--model", "best*") == [("gsm8k", "best_1")]
    assert rows("--benchmark", "gsm8k", "--benchmark", "prose", "--model", "best*") == [
        ("gsm8k", "best_1"),
        ("prose", "best_1"),
    ]
    suite = rows("--suite", "math")
    assert suite[-2:] == [("math (suite)", "best_1"), ("math (suite)", "poor#2")]
    assert {benchmark for benchmark, _ in suite} == {"gsm8k", "aime24", "math (suite)"}
    code, _, err = steelyard("results", store, "--model", "bst_1")
    assert (code, "did you mean 'best_1'" in err) == (2, True)


def test_models_are_set_apart_by_size(steelyard: Run, store: str) -> None:
    _, out, _ = steelyard("results", store, "--by-size")
    assert "models of size unknown" in out


def test_latex_is_escaped_and_parquet_needs_a_file(steelyard: Run, store: str, tmp_path: Path) -> None:
    _, out, _ = steelyard("results", store, "--format", "latex", "--benchmark", "gsm8k")
    assert r"gsm8k & \textbf{best\_1} & acc & \textbf{0.9500}" in out
    assert r"gsm8k & poor\#2 & acc & 0.0750" in out
    assert out.count(r"\\") == 3
    assert r"\begin{tabular}{lllrllrlrr}" in out
    assert r"& \textbf{+0.8750} &" in steelyard("results", store, "--format", "latex", "--pairs")[1]
    code, _, err = steelyard("results", store, "--format", "parquet")
    assert (code, "--output" in err) == (2, True)
    path = tmp_path / "board.parquet"
    assert steelyard("results", store, "--format", "parquet", "-o", str(path))[0] == 0
    frame = pd.read_parquet(path)
    assert set(frame["model"]) == {"best_1", "poor#2"}
    assert {"low", "high", "letters", "tier", "gpu_seconds", "partial"} <= set(frame)
    assert steelyard("results", store, "-o", str(tmp_path / "none" / "x.csv"), "--format", "csv")[0] == 2


def test_results_of_a_campaign_under_way_are_marked_partial(steelyard: Run, store: str) -> None:
    opened = open_store(store)
    frame = opened.leaderboard()
    cells = dict(zip(frame["benchmark"], frame["fingerprint"], strict=True)) | {"mmlu": "e" * 64}
    opened.write_model_run("nightly", "r1", {"model": "m", "cells": cells})
    _, out, _ = steelyard("results", store, "--campaign", "nightly")
    assert "Leaderboard (partial)" in out
    assert "3 of 4 cells are complete; not yet m on mmlu" in out
    assert "**nightly: partial" in steelyard("results", store, "--campaign", "nightly", "--format", "markdown")[1]
    row = json.loads(steelyard("results", store, "--campaign", "nightly", "--format", "json")[1].splitlines()[0])
    assert row["partial"] is True
    opened.write_campaign({"campaign": "nightly", "run": "r2", "seconds": 1.0, "models": []})
    assert "partial" not in steelyard("results", store, "--campaign", "nightly")[1]


def test_history_shows_each_models_scores(steelyard: Run, store: str) -> None:
    code, out, _ = steelyard("results", store, "--history", "--benchmark", "gsm8k")
    assert (code, "History" in out, out.count("gsm8k")) == (0, True, 2)
    rows = [json.loads(line) for line in steelyard("results", store, "--history", "--format", "json")[1].splitlines()]
    assert {row["score"] for row in rows} == {0.95, 0.075}
    assert steelyard("results", store, "--history", "--format", "latex")[0] == 2


def test_a_campaigns_newest_report_is_named(steelyard: Run, store: str) -> None:
    opened = open_store(store)
    frame = opened.leaderboard()
    cells = dict(zip(frame["benchmark"], frame["fingerprint"], strict=True))
    for run in ("r1", "r2"):
        opened.write_model_run("nightly", run, {"model": "m", "cells": cells})
        opened.write_report("nightly", run, "<!doctype html>")
    _, out, _ = steelyard("results", store, "--campaign", "nightly")
    assert f"Report: {store}/reports/campaign=nightly/r2.html" in out


def test_a_report_of_a_part_of_a_store_is_written(
    steelyard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(open_store(str(tmp_path / "store")))
    code, out, _ = steelyard("report", "store", "--model", "tiny", "--samples", "10", "-o", "page.html")
    assert code == 0
    assert out.startswith("page.html: ")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.unpacked("index")["models"] == ["tiny"]
    assert len(page.unpacked("index")["doc"]) == 10


def test_nothing_to_report_and_no_place_to_write_are_one_line(steelyard: Run, tmp_path: Path) -> None:
    store = tmp_path / "store"
    code, _, err = steelyard("report", str(store))
    assert (code, err) == (2, f"steelyard: No complete results in {store} yet\n")
    fill(open_store(str(store)))
    code, _, err = steelyard("report", str(store), "-o", str(tmp_path / "none" / "page.html"))
    assert (code, "it cannot be written: No such file or directory" in err) == (2, True)
