"""A benchmark that ends for a model once it is told apart from one that has answered all of it. Engines are scripted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.request import Generated, Request, Response
from core.results import open_store
from flows.campaign import campaign
from flows.rescore import rescore
from tests.flows.scripted import Engines
from tests.flows.test_rescore import ROWS, TASK

DOCS = 300


def wrong(request: Request) -> Response:
    return Generated(request.id, " 5", "stop", prompt_tokens=5, completion_tokens=1)


@pytest.fixture
def adaptive(spec: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Two models on one benchmark of 300 docs, the second of them compared with the first."""
    (tmp_path / "own.yaml").write_text(TASK.format(pattern="([0-9]+)"))
    (tmp_path / "rows.py").write_text(ROWS.format(prefix="").replace("range(6)", f"range({DOCS})"))
    return {**spec, "benchmarks": [{"name": str(tmp_path / "own.yaml"), "adaptive": {"against": ["first"]}}]}


def test_a_model_that_is_told_apart_answers_a_part_of_the_docs(engines: Engines, adaptive: dict[str, Any]) -> None:
    engines.scripts["second"] = wrong
    campaign({**adaptive, "models": adaptive["models"][:1]})
    assert len(engines.built["first"].seen) == DOCS, "what others are compared with answers all"
    campaign(adaptive)
    assert len(engines.built["second"].seen) == 64
    store = open_store(adaptive["results"])
    board = store.leaderboard("flows").set_index("model")
    assert (board.docs["first"], board.docs["second"]) == (DOCS, 64)
    one_target = "docs: the same target as every other doc"
    assert board.notes["first"] == f"{DOCS} of {DOCS} {one_target}"
    assert board.notes["second"] == f"ended after 64 of {DOCS} docs; 64 of 64 {one_target}"
    record = store.commit_record(board.fingerprint["second"])
    assert record is not None
    (found,) = record["metadata"]["adaptive"]["standings"]
    assert (found["against"], found["verdict"]) == ("first", "below")
    assert record["metadata"]["quality"]["failed"] == 0, "docs that nobody asked have not failed"
    samples = store.samples("flows")
    assert samples[samples.model == "second"].error.isna().all()

    engines.built.clear()
    campaign(adaptive)
    assert engines.built == {}, "the cell is complete"


def test_an_early_end_is_scored_again_as_it_is(engines: Engines, adaptive: dict[str, Any], tmp_path: Path) -> None:
    engines.scripts["second"] = wrong
    campaign({**adaptive, "models": adaptive["models"][:1]})
    campaign(adaptive)
    (tmp_path / "own.yaml").write_text(TASK.format(pattern="(5)"))
    assert "second · own" in rescore(adaptive).rescored
    board = open_store(adaptive["results"]).leaderboard("flows").set_index("model")
    assert board.docs["second"] == 64


def test_without_results_to_compare_with_all_docs_are_answered(
    engines: Engines, adaptive: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        campaign(adaptive, only=["second"])
    assert len(engines.built["second"].seen) == DOCS
    assert f"{DOCS} of {DOCS} docs answered: there are no results of first" in caplog.text


def test_equal_models_answer_all_docs_and_fewer_within_a_margin(engines: Engines, adaptive: dict[str, Any]) -> None:
    campaign({**adaptive, "models": adaptive["models"][:1]})
    campaign(adaptive)
    assert len(engines.built["second"].seen) == DOCS
    (benchmark,) = adaptive["benchmarks"]
    benchmark["adaptive"]["margin"] = 0.1
    campaign(adaptive)
    assert len(engines.built["second"].seen) < DOCS


def test_several_tasks_are_refused_before_anything_starts(
    engines: Engines, spec: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(TASK.format(pattern="([0-9]+)").replace("task: own", f"task: {name}"))
    (tmp_path / "rows.py").write_text(ROWS.format(prefix=""))
    (tmp_path / "both.yaml").write_text("group: both\ntask: [one, two]\n")
    benchmarks = [{"name": str(tmp_path / "both.yaml"), "adaptive": {"against": ["first"]}}]
    with pytest.raises(UserError, match="has 2 tasks"):
        campaign({**spec, "benchmarks": benchmarks})
    assert engines.built == {}


def test_models_that_nobody_knows_are_refused_before_anything_starts(
    engines: Engines, adaptive: dict[str, Any]
) -> None:
    (benchmark,) = adaptive["benchmarks"]
    benchmark["adaptive"]["against"] = ["fist"]
    with pytest.raises(UserError, match=r"against = 'fist'.*did you mean 'first'"):
        campaign(adaptive)
    assert engines.built == {}
