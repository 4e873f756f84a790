"""Publishing a run: which scores dropped since the run before, told by events."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
from prefect import flow
from prefect.artifacts import Artifact

import tasks.publish
from core.campaign import load_spec
from core.results import open_store
from tasks.artifacts import artifact_key
from tasks.publish import publish, publish_report, watch_scores
from tests.core.store_parts import METADATA, make_cell, make_scoring

pytestmark = pytest.mark.usefixtures("prefect_harness")


def test_a_score_that_dropped_since_the_run_before_is_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: list[dict[str, Any]] = []
    monkeypatch.setattr(tasks.publish, "emit_event", lambda **event: emitted.append(event))
    store = open_store(str(tmp_path))
    for run, letter, value in (("r1", "a", 0.9), ("r2", "b", 0.2)):
        cell = make_cell(letter)
        store.commit(cell, make_scoring(docs=10, value=value), METADATA)
        store.write_model_run("nightly", run, {"model": "tiny", "cells": {"gsm8k": cell.fingerprint}})
    spec = load_spec({"name": "nightly", "models": ["tiny"], "benchmarks": ["gsm8k"], "results": str(tmp_path)})

    @flow
    def after(run: str) -> list[str]:
        return watch_scores(spec, run)

    assert after("r1") == []
    assert after("r2") == ["tiny on gsm8k: acc 0.9000 → 0.2000 (p = 0.0020)"]
    (event,) = emitted
    assert event["event"] == "steelyard.score.dropped"
    assert event["resource"]["prefect.resource.id"] == "steelyard.campaign.nightly"
    assert (event["resource"]["model"], event["resource"]["before"]) == ("tiny", "0.9")


def test_the_leaderboard_is_shown_with_intervals_and_letters(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for model, letter, value in (("best", "a", 1.0), ("poor", "b", 0.0)):
        cell = make_cell(letter, model)
        store.commit(cell, make_scoring(docs=20, value=value), METADATA)
        store.write_model_run("shown", "r1", {"model": model, "cells": {"gsm8k": cell.fingerprint}})
    spec = load_spec({"name": "shown", "models": ["best"], "benchmarks": ["gsm8k"], "results": str(tmp_path)})

    @flow
    def after() -> dict[str, str]:
        frame = publish(spec, "r1", {}, 1.0)
        return dict(zip(frame["model"], frame["letters"], strict=True))

    assert after() == {"best": "a", "poor": "b"}
    artifact = cast("Artifact | None", Artifact.get(artifact_key("leaderboard", "shown")))
    assert artifact is not None
    rows = json.loads(str(artifact.data))
    # Wilson's bounds of 20 of 20 and 0 of 20: 20/(20 + z²) and what is left of 1
    assert [(row["model"], row["low"], row["high"]) for row in rows] == [("best", 0.8389, 1.0), ("poor", 0.0, 0.1611)]


def test_a_runs_report_is_stored_beside_its_results_and_linked(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    spec = load_spec({"name": "reported", "models": ["tiny"], "benchmarks": ["gsm8k"], "results": str(tmp_path)})

    @flow
    def after() -> str | None:
        return publish_report(spec, "r1")

    store.write_model_run("reported", "r1", {"model": "tiny", "cells": {"gsm8k": "a" * 64}})
    assert after() is None  # nothing is complete yet
    store.commit(make_cell("a"), make_scoring(docs=5), METADATA)
    uri = after()
    assert uri == f"{tmp_path}/reports/campaign=reported/r1.html"
    assert store.reports("reported") == [uri]
    assert "Evaluation report: reported" in Path(uri).read_text(encoding="utf-8")
    artifact = cast("Artifact | None", Artifact.get(artifact_key("report", "reported")))
    assert artifact is not None
    assert uri in str(artifact.data)


def test_a_report_that_cannot_be_made_is_told_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(str(tmp_path))
    cell = make_cell("a")
    store.commit(cell, make_scoring(), METADATA)
    store.write_model_run("broken", "r1", {"model": "tiny", "cells": {"gsm8k": cell.fingerprint}})
    next((tmp_path / "samples").rglob("*.parquet")).write_bytes(b"damaged")
    spec = load_spec({"name": "broken", "models": ["tiny"], "benchmarks": ["gsm8k"], "results": str(tmp_path)})

    @flow
    def after() -> str | None:
        return publish_report(spec, "r1")

    with caplog.at_level("WARNING", "steelyard"):
        assert after() is None
    assert "the report was not made (StoreError" in caplog.text
