"""Exports to MLflow, through its own client into a SQLite store, and read back by it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from core.results import Store, open_store
from tests.core.report.test_html import fill
from tests.core.store_parts import METADATA, make_cell, make_scoring

mlflow = pytest.importorskip("mlflow", reason='there is no client of MLflow: pip install "steelyard[mlflow]"')

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)  # its artifacts
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    store = open_store(str(tmp_path / "store"))
    fill(store)
    return store


def runs_of(experiment: str = "steelyard") -> list[Any]:
    client = mlflow.MlflowClient()
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def history(run: Any, metric: str) -> list[float]:
    return [each.value for each in mlflow.MlflowClient().get_metric_history(run.info.run_id, metric)]


def test_a_model_is_a_run_with_params_metrics_tags_and_files(steelyard: Run, store: Store, tmp_path: Path) -> None:
    code, said, err = steelyard("export", "--format", "mlflow", "--store", store.uri, "--samples", "--project", "evals")
    assert (code, said.count(" of experiment evals\n")) == (0, 2), err
    runs = {run.info.run_name: run for run in runs_of("evals")}
    assert set(runs) == {"nightly/tiny", "nightly/large"}
    tiny = runs["nightly/tiny"]
    assert tiny.info.status == "FINISHED"
    assert tiny.data.params["tensor_parallel"] == "2"
    assert tiny.data.params["version/vllm"] == "0.32.0"
    assert tiny.data.metrics["gsm8k/exact_match/strict"] == pytest.approx(17.5 / 19)
    assert tiny.data.metrics["gsm8k/cost"] == pytest.approx(0.008)
    assert tiny.data.tags["steelyard.campaign"] == "nightly"
    assert tiny.data.tags["steelyard.run"] == "r1"
    client = mlflow.MlflowClient()
    scores = pd.read_csv(client.download_artifacts(tiny.info.run_id, "scores/scores.csv", str(tmp_path)))
    assert scores["value"].tolist() == [tiny.data.metrics["gsm8k/exact_match/strict"]]
    samples = pd.read_parquet(client.download_artifacts(tiny.info.run_id, "samples/gsm8k.parquet", str(tmp_path)))
    assert len(samples) == 20


def test_the_same_again_is_the_same_run_and_no_point_more(steelyard: Run, store: Store) -> None:
    for _ in range(2):
        code, said, err = steelyard("export", "--format", "mlflow", "--store", store.uri)
        assert code == 0, err
    assert said.count(", updated") == 2
    assert len(runs_of()) == 2
    assert {len(history(run, name)) for run in runs_of() for name in run.data.metrics} == {1}


def test_what_has_come_since_is_added_to_the_run(steelyard: Run, store: Store) -> None:
    steelyard("export", "--format", "mlflow", "--store", store.uri)
    before = {run.info.run_id for run in runs_of()}
    metadata = {**METADATA, "placement": {**METADATA["placement"], "weight_bytes": 35_000_000_000}}
    cell = make_cell("c", "tiny", "mmlu")
    cell.settings.update(revision="rev-1")
    store.commit(cell, make_scoring(task="mmlu"), metadata)
    store.write_model_run("nightly", "r1", {"model": "tiny", "cells": {"gsm8k": "a" * 64, "mmlu": "c" * 64}})
    steelyard("export", "--format", "mlflow", "--store", store.uri)
    assert {run.info.run_id for run in runs_of()} == before
    tiny = next(run for run in runs_of() if run.info.run_name == "nightly/tiny")
    assert tiny.data.metrics["mmlu/acc"] == 1.0
    assert tiny.data.params["mmlu/fingerprint"] == "c" * 64


def test_a_param_that_differs_now_puts_a_new_run_in_place_of_the_old(steelyard: Run, store: Store) -> None:
    steelyard("export", "--format", "mlflow", "--store", store.uri)
    before = {run.info.run_name: run.info.run_id for run in runs_of()}
    store.commit(make_cell("c", "tiny", "mmlu"), make_scoring(task="mmlu"), METADATA)  # of another revision
    store.write_model_run("nightly", "r1", {"model": "tiny", "cells": {"gsm8k": "a" * 64, "mmlu": "c" * 64}})
    steelyard("export", "--format", "mlflow", "--store", store.uri)
    after = {run.info.run_name: run.info.run_id for run in runs_of()}
    assert after["nightly/large"] == before["nightly/large"]
    assert after["nightly/tiny"] != before["nightly/tiny"]
    tiny = next(run for run in runs_of() if run.info.run_name == "nightly/tiny")
    assert tiny.data.params["revision"] == "main, rev-1"


def test_a_model_that_failed_is_a_failed_run(steelyard: Run, store: Store) -> None:
    (run,) = store.campaigns("nightly")
    store.write_campaign({**run, "failures": {"tiny": "out of memory"}})
    steelyard("export", "--format", "mlflow", "--store", store.uri)
    found = {each.info.run_name: each for each in runs_of()}
    assert {name: each.info.status for name, each in found.items()} == {
        "nightly/tiny": "FAILED",
        "nightly/large": "FINISHED",
    }
    assert found["nightly/tiny"].data.tags["steelyard.failure"] == "out of memory"


def test_an_experiment_in_the_bin_is_one_line(steelyard: Run, store: Store) -> None:
    client = mlflow.MlflowClient()
    client.delete_experiment(client.create_experiment("steelyard"))
    code, _, err = steelyard("export", "--format", "mlflow", "--store", store.uri)
    assert (code, "the experiment is deleted: restore it" in err) == (2, True), err


def test_a_server_that_refuses_is_one_line(steelyard: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    code, _, err = steelyard("export", "--format", "mlflow", "--store", store.uri)
    assert (code, err.count("\n"), "see MLFLOW_TRACKING_URI" in err) == (2, 1, True), err
