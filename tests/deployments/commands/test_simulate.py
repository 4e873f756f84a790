"""``steelyard simulate`` and the estimates of ``steelyard plan``, in process; nothing here starts an engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.results import open_store
from core.sample import Cell
from tests.checkpoints import write_checkpoint
from tests.core.planning.cost.test_history import record
from tests.core.store_parts import make_scoring

Steelyard = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    path = tmp_path / "fleet.yaml"
    groups = [
        {"nodes": 2, "gpus": 2, "gpu_memory_gb": 80, "gpu_kind": "H100"},
        {"nodes": 1, "gpus": 2, "gpu_memory_gb": 24, "gpu_kind": "L4"},
    ]
    path.write_text(yaml.safe_dump(groups))
    return str(path)


def models(tmp_path: Path) -> list[Any]:
    small = [str(write_checkpoint(tmp_path / f"m{number}", seed=number)) for number in range(4)]
    return [*small, {"model": small[0], "name": "wide", "engine": "distributed", "tensor_parallel": 2}]


def test_simulate_compares_policies_with_the_bound_and_draws(
    steelyard: Steelyard, campaign: Callable[..., str], fleet: str, tmp_path: Path
) -> None:
    chart = tmp_path / "gantt.html"
    code, out, err = steelyard("simulate", campaign(models=models(tmp_path)), "--fleet", fleet, "--html", str(chart))
    assert (code, err) == (0, "")
    for words in ("longest first, backfill", "first in, first out", "small and large apart", "utilisation", "wait"):
        assert words in out
    assert "5 models on 6 GPUs in 3 nodes. No schedule ends before" in out
    assert "wide" in chart.read_text()


def test_simulate_takes_the_campaigns_own_fleet_and_straying_times(
    steelyard: Steelyard, campaign: Callable[..., str], tmp_path: Path
) -> None:
    code, out, _ = steelyard("simulate", campaign(models=models(tmp_path)), "--error", "0.3")
    assert code == 0
    assert "5 models on 8 GPUs in 1 nodes" in out


def test_a_model_that_fits_nowhere_and_a_wrong_fleet_are_one_line(
    steelyard: Steelyard, campaign: Callable[..., str], tmp_path: Path
) -> None:
    wide = {"model": str(write_checkpoint(tmp_path / "m")), "engine": "distributed", "tensor_parallel": 4}
    path = tmp_path / "fleet.yaml"
    for fleet, words in (
        ({"gpus": 2, "gpu_kind": "L4"}, "'m' fits nowhere in the fleet: L4"),
        ({"gpus": -1}, "gpus = -1"),
    ):
        path.write_text(yaml.safe_dump(fleet))
        code, _, err = steelyard("simulate", campaign(models=[wide]), "--fleet", str(path))
        assert code == 2
        assert words in err
        assert err.count("\n") == 1


def test_plan_says_time_money_and_where_numbers_come_from(steelyard: Steelyard, campaign: Callable[..., str]) -> None:
    priced = {"gpus": 8, "gpu_memory_gb": 8, "device": "cpu", "price_per_gpu_hour": 3.5}
    code, out, _ = steelyard("plan", campaign(fleet=priced))
    assert code == 0
    for words in ("80% interval", "GPU-hours", "cost", "priors alone", "size known, tokens guessed: steelyard_facts"):
        assert words in out


def test_plan_learns_from_the_store_and_says_how_far_it_was_off(
    steelyard: Steelyard, campaign: Callable[..., str], tmp_path: Path
) -> None:
    spec, store = campaign(), open_store(str(tmp_path / "results"))
    took = {
        "seconds": 0.1,
        "load_seconds": 0.05,
        "prompt_tokens": 30_000,
        "estimate": {"seconds": 0.3, "benchmarks": 3},
    }
    for number in range(3):
        data = record("steelyard_facts", 1, 1)
        data["settings"]["benchmark"]["tasks"] = {"steelyard_facts": {"num_fewshot": 0}}
        cell = Cell(f"{number}" * 64, "m", "steelyard_facts", data["settings"])
        store.commit(cell, make_scoring(docs=30), data["metadata"] | took)
        store.write_model_run("old", f"run-{number}", {"model": "m", "cells": {"steelyard_facts": cell.fingerprint}})
    code, out, _ = steelyard("plan", spec)
    assert code == 0
    assert "3 stored cells, other models': steelyard_facts" in out
    assert "Past estimates were off by 100% in the median over 1 run of a model (1 as stored before the run" in out
    assert "priors alone" not in out


def test_plan_goes_on_without_a_store_that_does_not_answer(
    steelyard: Steelyard, campaign: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    code, out, _ = steelyard("plan", campaign(results="s3://bucket/prefix"))
    assert code == 0
    assert "No past runs are used: " in out
