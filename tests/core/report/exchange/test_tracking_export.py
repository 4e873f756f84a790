"""What experiment trackers are given: one run per run of a campaign and model, with nothing secret in it."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd
import pytest

from core.report.exchange.tracking_export import TrackedRun, tracked_runs

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCY"
ENDED = "2026-11-27T10:00:00+00:00"
FACTS = {
    "engine": "distributed",
    "tensor_parallel": 2,
    "pipeline_parallel": 1,
    "replicas": 1,
    "weight_gb": 35.0,
    "reason": "weights of 35 GB exceed 30 GB",
    "tokens_per_second": 100.0,
    "seconds": 4.0,
    "gpus": 2,
    "gpu_seconds": 8.0,
    "prompt_tokens": 300,
    "completion_tokens": 100,
    "committed": ENDED,
}
RUN: dict[str, Any] = {
    "campaign": "nightly",
    "run": "r1",
    "spec": {"fleet": {"price_per_gpu_hour": 3.6}},
    "versions": {"vllm": "0.32.0", "torch": "2.13.0"},
    "failures": {},
    "models": [{"model": "tiny", "cells": {"gsm8k": "a" * 64}}],
}


def board_row(cell: str = "a", benchmark: str = "gsm8k", model: str = "tiny", **other: Any) -> dict[str, Any]:
    own = {"campaign": "nightly", "model": model, "benchmark": benchmark, "fingerprint": cell * 64}
    return {**own, "metric": "exact_match", "filter": "strict", "docs": 19, **FACTS, **other}


def score_row(cell: str = "a", task: str = "gsm8k", **other: Any) -> dict[str, Any]:
    own = {"fingerprint": cell * 64, "task": task, "metric": "exact_match", "filter": "strict", "value": 0.5}
    return {**own, "stderr": 0.1, "docs": 19, "is_headline": True, **other}


def record(cell: str = "a", settings: dict[str, Any] | None = None, **other: Any) -> dict[str, Any]:
    own = {"source": "org/tiny", "revision": "main", "checkpoint": "c0ffee", "dtype": "float32", **(settings or {})}
    metadata = {"seconds": 4.0, "vllm_version": "0.32.0"}
    return {"fingerprint": cell * 64, "settings": own, "metadata": metadata, "committed": ENDED, **other}


def exported(
    board: list[dict[str, Any]],
    scores: list[dict[str, Any]],
    records: list[dict[str, Any]],
    run: dict[str, Any] = RUN,
) -> list[TrackedRun]:
    by_cell = {each["fingerprint"]: each for each in records}
    return tracked_runs(pd.DataFrame(board), pd.DataFrame(scores), [run], by_cell, "s3://evals/nightly")


def exported_one(**run: Any) -> TrackedRun:
    (found,) = exported([board_row()], [score_row()], [record()], {**RUN, **run})
    return found


def test_each_model_of_a_campaign_run_is_a_run_with_a_key_of_its_own() -> None:
    board = [board_row(), board_row("b", model="large")]
    found = exported(board, [score_row(), score_row("b")], [record(), record("b")])
    assert [each.name for each in found] == ["nightly/large", "nightly/tiny"]
    again = exported(board, [score_row(), score_row("b")], [record(), record("b")])
    later = exported(board, [score_row(), score_row("b")], [record(), record("b")], {**RUN, "run": "r2"})
    assert [each.key for each in again] == [each.key for each in found]
    assert len({each.key for each in (*found, *later)}) == 4


def test_params_say_what_the_model_was_where_it_ran_and_on_which_versions() -> None:
    settings = {"seed": 0, "limit": None, "sampling": {}, "tasks": {"gsm8k": {"num_fewshot": 5, "version": 3.0}}}
    (found,) = exported([board_row()], [score_row()], [record(settings={"benchmark": settings, "vllm": {"x": True}})])
    assert dict(found.params) == {
        "source": "org/tiny",
        "revision": "main",
        "checkpoint": "c0ffee",
        "dtype": "float32",
        "vllm": '{"x": true}',
        "engine": "distributed",
        "tensor_parallel": "2",
        "pipeline_parallel": "1",
        "replicas": "1",
        "weight_gb": "35.0",
        "reason": "weights of 35 GB exceed 30 GB",
        "vllm_version": "0.32.0",
        "version/vllm": "0.32.0",
        "version/torch": "2.13.0",
        "gsm8k/fingerprint": "a" * 64,
        "gsm8k/metric": "exact_match,strict",
        "gsm8k/seed": "0",
        "gsm8k/num_fewshot": "5",
        "gsm8k/version": "3.0",
    }


def test_params_that_differ_between_benchmarks_name_each_value() -> None:
    board = [board_row(), board_row("b", "mmlu", tensor_parallel=4)]
    (found,) = exported(board, [score_row(), score_row("b", "mmlu")], [record(), record("b", {"dtype": "bfloat16"})])
    assert (found.params["tensor_parallel"], found.params["dtype"]) == ("2, 4", "bfloat16, float32")
    assert found.params["revision"] == "main"


def test_metrics_are_scores_with_their_errors_and_what_they_took() -> None:
    rows = [
        score_row(),
        score_row(filter="none", metric="acc", value=0.25, stderr=None),
        score_row(task="gsm8k_main", filter="none", value=0.75),
    ]
    (found,) = exported([board_row()], rows, [record()])
    assert dict(found.metrics) == {
        "gsm8k/exact_match/strict": 0.5,
        "gsm8k/exact_match_stderr/strict": 0.1,
        "gsm8k/acc": 0.25,
        "gsm8k/gsm8k_main/exact_match": 0.75,
        "gsm8k/gsm8k_main/exact_match_stderr": 0.1,
        "gsm8k/docs": 19.0,
        "gsm8k/tokens_per_second": 100.0,
        "gsm8k/seconds": 4.0,
        "gsm8k/gpus": 2.0,
        "gsm8k/gpu_seconds": 8.0,
        "gsm8k/prompt_tokens": 300.0,
        "gsm8k/completion_tokens": 100.0,
        "gsm8k/cost": pytest.approx(0.008),
    }
    assert [row["metric"] for row in found.scores] == ["exact_match", "acc", "exact_match"]


def test_what_is_not_known_is_no_metric_and_no_param() -> None:
    board = [board_row(gpu_seconds=None, tokens_per_second=math.nan, reason=None)]
    (found,) = exported(board, [score_row(value=math.inf)], [record()])
    assert not {"gsm8k/gpu_seconds", "gsm8k/cost", "gsm8k/tokens_per_second", "gsm8k/exact_match/strict"} & {
        *found.metrics
    }
    assert "reason" not in found.params
    assert "gsm8k/cost" not in exported_one(spec={"fleet": {}}).metrics


def test_names_are_such_as_mlflow_takes_and_none_of_two_gets_lost() -> None:
    board = [board_row(benchmark="gsm8k@judge"), board_row("b", "gsm8k:judge")]
    scores = [score_row(task="..", metric="a/b", filter="x,y"), score_row("b", "..", metric="a/b", filter="x,y")]
    (found,) = exported(board, scores, [record(), record("b")])
    assert found.metrics["gsm8k_judge/_/a_b/x_y"] == found.metrics["gsm8k_judge/_/a_b/x_y 2"] == 0.5
    assert all(re.fullmatch(r"[\w\-. /]{1,250}", name, re.ASCII) for name in (*found.metrics, *found.params))
    (long,) = exported([board_row(benchmark="b" * 400)], [score_row()], [record()])
    assert max(map(len, long.metrics)) <= 250


def test_long_texts_are_cut_to_what_every_server_takes() -> None:
    (found,) = exported([board_row()], [score_row()], [record(settings={"system_prompt": "word " * 1000})])
    assert len(found.params["system_prompt"]) == 500


def test_no_secret_of_the_environment_goes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    said = f"it died of {SECRET}"
    settings = {"system_prompt": SECRET, "source": f"s3://user:{SECRET}@host/tiny", "vllm": {SECRET: [SECRET]}}
    board = [board_row(reason=said, benchmark=SECRET, model=SECRET)]
    run = {**RUN, "failures": {SECRET: said}, "versions": {"vllm": SECRET}}
    (found,) = exported(board, [score_row(metric=SECRET, task=SECRET)], [record(settings=settings)], run)
    assert SECRET not in repr(found)
    assert found.params["system_prompt"] == "***"
    assert found.tags["failure"] == "it died of ***"


def test_tags_name_the_run_and_what_is_missing_of_it() -> None:
    assert exported_one().tags == {"model": "tiny", "campaign": "nightly", "run": "r1", "partial": "false"}
    assert not exported_one().failed
    cells = {"gsm8k": "a" * 64, "mmlu": "b" * 64}
    found = exported_one(models=[{"model": "tiny", "cells": cells}], failures={"tiny": "out of memory"})
    assert (found.tags["partial"], found.tags["failure"], found.failed) == ("true", "out of memory", True)


def test_results_that_no_campaign_asked_for_are_told_apart_by_their_store() -> None:
    board = [board_row(campaign=None, committed="2026-11-26T10:00:00+00:00"), board_row("b", campaign=None)]
    by_cell = {each["fingerprint"]: each for each in (record(), record("b"))}
    frames = pd.DataFrame(board), pd.DataFrame([score_row(), score_row("b", value=0.75)])
    (found,) = tracked_runs(*frames, [], by_cell, "s3://one")
    (other,) = tracked_runs(*frames, [], by_cell, "s3://other")
    assert found.key != other.key
    assert (found.name, found.tags) == ("tiny", {"model": "tiny"})
    assert (found.metrics["gsm8k/exact_match/strict"], found.cells) == (0.75, {"gsm8k": "b" * 64})  # the newest


def test_a_run_lasts_from_its_first_request_to_its_last_commit() -> None:
    found = exported_one()
    assert found.ended - found.started == 4.0
