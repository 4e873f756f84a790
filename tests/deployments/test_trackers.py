"""``steelyard export --format mlflow`` and ``wandb``, as far as it goes without their clients."""

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from core.board.select import Selection
from core.results import open_store
from deployments.trackers import read_tracked, write_files
from tests.core.report.test_html import fill
from tests.core.store_parts import METADATA, make_cell, make_scoring

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_client_that_is_not_installed_is_one_line_with_what_to_install(
    steelyard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)
    fill(open_store(str(tmp_path)))
    code, _, err = steelyard("export", "--format", tracker, "--store", str(tmp_path))
    assert (code, err.count("\n")) == (2, 1)
    assert f'pip install "steelyard[{tracker}]"' in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "mlflow", "out"], "DIR 'out': mlflow takes none"),
        ([], "DIR: name the folder to write to"),
        (["out", "--project", "p"], "--project is of --format mlflow and wandb"),
        (["out", "--samples"], "lm-eval has samples anyway"),
    ],
)
def test_options_of_another_format_are_refused(
    steelyard: Run, tmp_path: Path, arguments: list[str], words: str
) -> None:
    code, _, err = steelyard("export", *arguments, "--store", str(tmp_path))
    assert (code, words in err) == (2, True), err


def test_a_cell_that_two_campaigns_share_is_in_the_runs_of_both(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for letter, benchmark in (("a", "gsm8k"), ("b", "mmlu"), ("c", "lonely")):
        store.commit(make_cell(letter, benchmark=benchmark), make_scoring(task=benchmark), METADATA)
    for campaign, letters in (("one", "ab"), ("two", "a")):
        cells = {{"a": "gsm8k", "b": "mmlu"}[letter]: letter * 64 for letter in letters}
        store.write_model_run(campaign, "r1", {"model": "tiny", "cells": cells})
    found = {each.name: set(each.cells) for each in read_tracked(store, None, Selection())}
    assert found == {"one/tiny": {"gsm8k", "mmlu"}, "two/tiny": {"gsm8k"}, "tiny": {"lonely"}}
    (chosen,) = read_tracked(store, "one", Selection(benchmarks=("mm*",)))
    assert (set(chosen.cells), chosen.tags["partial"]) == ({"mmlu"}, "false")
    assert [row["task"] for row in chosen.scores] == ["mmlu"]


def test_files_are_the_scores_table_and_samples_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "store"))
    fill(store)
    monkeypatch.setenv("HF_TOKEN", "ponders")  # every answer's reasoning has it
    run = read_tracked(store, "nightly", Selection(models=("tiny",)))[0]
    for name, samples in (("plain", False), ("all", True)):
        (tmp_path / name).mkdir()
        write_files(tmp_path / name, store, run, samples=samples)
    assert [each.name for each in (tmp_path / "plain").iterdir()] == ["scores"]
    scores = pd.read_csv(tmp_path / "all" / "scores" / "scores.csv")
    assert scores[["benchmark", "model", "metric", "filter", "docs"]].to_numpy().tolist() == [
        ["gsm8k", "tiny", "exact_match", "strict", 19]
    ]
    read = pd.read_parquet(tmp_path / "all" / "samples" / "gsm8k.parquet")
    stored = store.samples("nightly").query("model == 'tiny'")
    assert list(read["prompt"]) == list(stored["prompt"])
    assert read["value"].equals(stored["value"].reset_index(drop=True))
    assert list(read["reasoning"].iloc[0]) == ["tiny ***"]
