"""What of a leaderboard is looked at, size tiers, suites as benchmarks, and campaigns that are not whole."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.board.read import unfinished
from core.board.select import Selection, find_suite, select, tier_of, tiers, with_facts, with_suite
from core.compare.compare import compare, read_values
from core.errors import UserError
from core.results import open_store
from tests.core.compare.test_between import store_cell

BOARD = pd.DataFrame(
    {"model": ["m1", "m2", "n1"], "benchmark": ["gsm8k", "mmlu", "gsm8k"], "fingerprint": ["a", "b", "c"]}
)


def test_rows_are_selected_by_names_patterns_and_suite() -> None:
    assert select(BOARD, Selection())["fingerprint"].tolist() == ["a", "b", "c"]
    assert select(BOARD, Selection(models=["m*"]))["fingerprint"].tolist() == ["a", "b"]
    assert select(BOARD, Selection(models=["m*"], benchmarks=["gsm8k"]))["fingerprint"].tolist() == ["a"]
    assert select(BOARD, Selection(suite="math"))["fingerprint"].tolist() == ["a", "c"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"models": ["m3"]}, "--model 'm3': no results of it; there are m1, m2, n1"),
        ({"benchmarks": ["zz*"]}, "--benchmark 'zz*': no results of it; there are gsm8k, mmlu"),
        ({"suite": "code"}, "--suite 'code': no results of any of its benchmarks"),
        ({"suite": "maths"}, "--suite 'maths': no such suite — did you mean 'math'?"),
    ],
)
def test_a_name_without_results_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        select(BOARD, Selection(**given))


def test_sizes_tokens_and_gpu_seconds_come_from_the_records() -> None:
    placement = {"weight_bytes": 16_000_000_000, "tensor_parallel": 2, "pipeline_parallel": 1, "replicas": 2}
    metadata = {"placement": placement, "seconds": 10.0, "prompt_tokens": 5, "completion_tokens": 7}
    frame = with_facts(BOARD, {"a": {"metadata": metadata, "settings": {"revision": "r"}, "committed": "2026"}})
    first = frame.iloc[0]
    assert (first["weight_gb"], first["tier"], first["gpus"], first["gpu_seconds"]) == (16.0, "8 to 30 GB", 4, 40.0)
    assert (first["prompt_tokens"], first["completion_tokens"], first["revision"]) == (5, 7, "r")
    assert tiers(frame) == ["8 to 30 GB", "size unknown"]
    assert [tier_of(gb) for gb in (1.0, 1.1, 200.0, None)] == ["up to 1 GB", "1 to 8 GB", "over 160 GB", "size unknown"]


def test_a_suite_is_the_mean_of_its_members_tested_over_all_their_docs(tmp_path: Path) -> None:
    from core.compare.paired import compare_paired

    rng = np.random.default_rng(3)
    values = {(m, b): rng.integers(0, 2, 150).astype(float) for m in ("old", "new") for b in ("gsm8k", "aime24")}
    values["new", "gsm8k"] = np.maximum(values["new", "gsm8k"], values["old", "gsm8k"])
    store = open_store(str(tmp_path))
    for (model, benchmark), each in values.items():
        store_cell(store, model, benchmark, each.tolist())
    store_cell(store, "part", "gsm8k", [1.0] * 150)
    board = store.leaderboard()
    samples, whole, remarks = with_suite(read_values(store, board), board, find_suite("math"))
    compared = compare(samples, whole)
    assert remarks == ["part: 1 of 2 benchmarks of math (suite), so no row there"]
    rows = compared.board[compared.board["benchmark"] == "math (suite)"].set_index("model")
    means = {m: (values[m, "gsm8k"].mean() + values[m, "aime24"].mean()) / 2 for m in ("old", "new")}
    assert rows["score"].to_dict() == pytest.approx(means)
    assert set(rows["metric"]) == {"mean of 2 of 4"}
    assert (rows["low"] < rows["score"]).all()
    (pair,) = compared.pairs[compared.pairs["benchmark"] == "math (suite)"].to_dict("records")
    stacked = [np.concatenate([values[m, "aime24"], values[m, "gsm8k"]]) for m in (pair["model_a"], pair["model_b"])]
    wanted = compare_paired(*stacked, tasks=[0] * 150 + [1] * 150, weights="tasks")
    assert (pair["p"], pair["docs"]) == (pytest.approx(wanted.p_value), 300)


def run(run: str, cells: dict[str, str], **manifest: Any) -> dict[str, Any]:
    return {"campaign": "nightly", "run": run, "models": [{"model": "m", "cells": cells}], **manifest}


def test_a_campaign_is_partial_until_its_newest_run_has_ended_with_all_cells() -> None:
    old, cells = run("r1", {"gsm8k": "x"}, seconds=1.0), {"gsm8k": "a", "mmlu": "b"}
    (under_way,) = unfinished([run("r2", cells), old], {"a", "x"})
    assert str(under_way) == (
        "nightly: partial, its run r2 has not ended (under way, or cut short); 1 of 2 cells are complete; not yet m on mmlu"
    )
    assert len(unfinished([run("r2", cells)], {"a", "b"})) == 1  # other models may still come
    (ended,) = unfinished([run("r2", cells, seconds=1.0, failures={"m": "killed"})], {"a"})
    assert str(ended).endswith(
        "ended without some cells; 1 of 2 cells are complete; not yet m on mmlu; m failed: killed"
    )
    assert unfinished([run("r2", cells, seconds=1.0)], {"a", "b"}) == []
