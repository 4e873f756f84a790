from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.planning.cost.history import history_of, read_history
from core.results import open_store
from tests.core.store_parts import make_cell, make_scoring

PLACEMENT = {
    "tensor_parallel": 2,
    "pipeline_parallel": 1,
    "replicas": 1,
    "weight_bytes": 16 * 10**9,
    "dtype": "bfloat16",
}


def record(benchmark: str, ended: float, seconds: float, load: float = 30.5, **metadata: Any) -> dict[str, Any]:
    """A commit record, as far as time is concerned."""
    return {
        "benchmark": benchmark,
        "settings": {
            "checkpoint": "c0ffee",
            "benchmark": {"limit": 50, "tasks": {"a": {"num_fewshot": 5}, "b": {"num_fewshot": 0}}},
        },
        "metadata": {
            "engine": "distributed",
            "placement": PLACEMENT,
            "seconds": seconds,
            "load_seconds": load,
            "prompt_tokens": 1000,
            "cached_tokens": 400,
            "completion_tokens": 50,
            "resumed": 0,
            **metadata,
        },
        "files": [{"path": "samples/x", "rows": 100}, {"path": "scores/x", "rows": 4}],
        "committed": datetime.fromtimestamp(ended, UTC).isoformat(timespec="seconds"),
    }


def test_benchmarks_of_one_engine_are_one_job_as_long_as_the_longest() -> None:
    (job,) = history_of([record("a", 1000, 60), record("b", 1020, 80)], "H100").jobs
    assert (job.seconds, job.load_seconds, job.ended) == (80, 30.5, 1020)
    assert (job.tokens.computed, job.tokens.cached, job.tokens.decoded) == (1200, 800, 100)
    assert (job.setup.weight_gb, job.setup.parameters, job.setup.kind) == (16, 8e9, "H100")
    assert (job.setup.tensor_parallel, job.setup.stages) == (2, 1)


def test_another_load_is_another_job() -> None:
    assert len(history_of([record("a", 1000, 60), record("b", 1020, 80, load=31.25)], "H100").jobs) == 2


def test_a_service_found_loaded_gives_a_job_for_each_time_it_was_used() -> None:
    cells = [record("a", 1000, 60, 0.0), record("b", 1010, 30, 0.0), record("c", 5000, 100, 0.0)]
    first, second = history_of(cells, "H100").jobs
    assert (first.seconds, first.load_seconds) == (70, None)
    assert (second.seconds, second.load_seconds) == (100, None)


def test_cells_tell_docs_tokens_and_shots() -> None:
    (cell,) = history_of([record("a", 1000, 60)], "H100").cells
    assert (cell.benchmark, cell.checkpoint, cell.limit, cell.shots, cell.docs) == ("a", "c0ffee", 50, 5, 100)
    assert (cell.prompt, cell.cached, cell.completion) == (1000, 400, 50)


def test_a_cell_that_ended_early_tells_its_time_and_not_how_many_docs_there_are() -> None:
    history = history_of([record("a", 1000, 60, adaptive={"docs": 100, "of": 1319})], "H100")
    assert (len(history.jobs), history.cells) == (1, ())
    assert history_of([record("a", 1000, 60, adaptive={"docs": 100, "of": 100})], "H100").cells


def test_a_resumed_cell_tells_its_time_and_not_its_tokens_per_doc() -> None:
    history = history_of([record("a", 1000, 60, resumed=7)], "H100")
    assert (len(history.jobs), history.cells) == (1, ())


def test_what_a_record_says_of_its_gpu_and_estimate_is_used() -> None:
    estimate = {"seconds": 75.0, "benchmarks": 1}
    told = record("a", 1000, 60, gpu_kind="L4", estimate=estimate)
    (job,) = history_of([told], "H100").jobs
    assert (job.setup.kind, job.foretold) == ("L4", 75)


def test_an_estimate_of_more_than_was_left_to_do_foretold_nothing() -> None:
    of_two: dict[str, Any] = {"estimate": {"seconds": 75.0, "benchmarks": 2}}
    both = [record("a", 1000, 60, **of_two), record("b", 1020, 80, **of_two)]
    assert history_of(both, "H100").jobs[0].foretold == 75
    assert history_of(both[:1], "H100").jobs[0].foretold is None
    assert history_of([both[0], record("b", 1020, 80, resumed=3, **of_two)], "H100").jobs[0].foretold is None
    loaded = [record(name, 1000, 60, 0.0, **of_two) for name in "ab"]
    assert history_of(loaded, "H100").jobs[0].foretold is None


@pytest.mark.parametrize("metadata", [{"seconds": None}, {"placement": {}}, {"seconds": 0}])
def test_records_without_timings_are_left_out(metadata: dict[str, Any]) -> None:
    history = history_of([record("a", 1000, 60) | {"metadata": {**record("a", 1, 1)["metadata"], **metadata}}], "H100")
    assert (history.jobs, history.cells) == ((), ())


def test_a_store_is_read_by_its_runs(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert read_history(store, "cpu").jobs == ()
    cell = replace(make_cell("a"), settings=record("gsm8k", 1, 1)["settings"])
    store.commit(cell, make_scoring(docs=3), record("gsm8k", 1, 12.5)["metadata"])
    store.write_model_run("nightly", "run-1", {"model": "tiny", "cells": {"gsm8k": cell.fingerprint, "lost": "f" * 64}})
    history = read_history(store, "cpu")
    assert [job.seconds for job in history.jobs] == [12.5]
    assert [(each.benchmark, each.docs) for each in history.cells] == [("gsm8k", 3)]
