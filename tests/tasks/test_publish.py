"""Publishing a run: which scores dropped since the run before, told by events."""

from pathlib import Path
from typing import Any

import pytest
from prefect import flow

import tasks.publish
from core.campaign import load_spec
from core.results import open_store
from tasks.publish import watch_scores
from tests.core.store_parts import METADATA, make_cell, make_scoring

pytestmark = pytest.mark.usefixtures("prefect_harness")


def test_a_score_that_dropped_since_the_run_before_is_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: list[dict[str, Any]] = []
    monkeypatch.setattr(tasks.publish, "emit_event", lambda **event: emitted.append(event))
    store = open_store(str(tmp_path))
    for run, letter, value in (("r1", "a", 0.9), ("r2", "b", 0.2)):
        cell = make_cell(letter)
        store.commit(cell, make_scoring(value=value), METADATA)
        store.write_model_run("nightly", run, {"model": "tiny", "cells": {"gsm8k": cell.fingerprint}})
    spec = load_spec({"name": "nightly", "models": ["tiny"], "benchmarks": ["gsm8k"], "results": str(tmp_path)})

    @flow
    def after(run: str) -> list[str]:
        return watch_scores(spec, run)

    assert after("r1") == []
    assert after("r2") == ["tiny on gsm8k: acc 0.9000 → 0.2000 (4.9 σ)"]
    (event,) = emitted
    assert event["event"] == "steelyard.score.dropped"
    assert event["resource"]["prefect.resource.id"] == "steelyard.campaign.nightly"
    assert (event["resource"]["model"], event["resource"]["before"]) == ("tiny", "0.9")
