"""The quick part of `perf.chaos`: campaigns over scripted engine processes, killed at random moments and run again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.settings import get_current_settings

from core.results import open_store
from engines.host.slots import DevicePool, holders
from engines.process.engine import child_environment
from flows.campaign import campaign
from tests.flows.scripted import BENCHMARKS
from tests.processes import nothing_left, running, started_since
from tests.waiting import until

DOCS = 40
ENGINE = "tests.engines.scripted_process"
SEED = int(os.environ.get("STEELYARD_CHAOS_SEED", "1"))


@pytest.fixture
def killed_spec(spec: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    model = {"model": spec["models"][0], "name": "first", "replicas": 1}
    return {**spec, "models": [model], "benchmarks": [{**BENCHMARKS[1], "limit": DOCS}], "canary": False}


@contextmanager
def started(spec: dict[str, Any], folder: Path, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    environment = child_environment(os.environ) | {"PREFECT_API_URL": str(get_current_settings().api.url)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.flows.killed_campaign", str(path), str(seconds)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def engine_of(process: subprocess.Popen[bytes], but: set[int]) -> int | None:
    """The engine's process, once it is there and not one of those seen before; None where the campaign ends first."""
    while process.poll() is None:
        for child in psutil.Process(process.pid).children():
            if child.pid not in but and ENGINE in child.cmdline():
                return child.pid
        try:
            process.wait(0.02)  # a process that starts tells nobody here
        except subprocess.TimeoutExpired:
            continue
    return None


def waited(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def test_what_is_killed_at_any_moment_and_run_again_is_as_if_nothing_had_happened(
    killed_spec: dict[str, Any], tmp_path: Path
) -> None:
    print(f"STEELYARD_CHAOS_SEED={SEED}")
    moments = random.Random(SEED)
    before = running()
    for _ in range(2):  # the campaign, while its engine lives
        with started(killed_spec, tmp_path, 0.1) as process:
            assert engine_of(process, set()) is not None
            waited(process, 0.5 + 3 * moments.random())
            assert process.poll() is None
            process.kill()
            process.wait()
        assert nothing_left(before)
        until(lambda: holders(DevicePool("cpu", ("0", "1"))) == [])  # a process gives its memory back before its locks
        assert len(open_store(killed_spec["results"]).samples()) == 0
    seen: set[int] = set()
    with started(killed_spec, tmp_path, 0.1) as process:  # the engine, twice under one campaign
        for _ in range(2):
            engine = engine_of(process, seen)
            assert engine is not None
            seen.add(engine)
            waited(process, 0.2 + 0.5 * moments.random())
            os.kill(engine, signal.SIGKILL)
        assert process.wait(120) == 0
    assert nothing_left(before)
    store = open_store(killed_spec["results"])
    (record,) = store.commit_records().values()
    assert record["metadata"]["faults"][0]["action"] == "restart"
    assert len(record["metadata"]["faults"]) == 2
    samples = store.samples().sort_values("doc_id")
    assert samples["doc_id"].tolist() == list(range(DOCS))
    assert samples["error"].isna().all()

    undisturbed = {**killed_spec, "results": str(tmp_path / "undisturbed")}
    with started(undisturbed, tmp_path, 0.0) as process:
        assert process.wait(120) == 0
    right = open_store(undisturbed["results"]).samples().sort_values("doc_id")
    assert samples["texts"].map(list).tolist() == right["texts"].map(list).tolist()
    assert store.scores()["value"].tolist() == open_store(undisturbed["results"]).scores()["value"].tolist()
    assert started_since(before) == []
    assert len(campaign(killed_spec).leaderboard) == 1  # complete: nothing is computed again
