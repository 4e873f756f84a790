"""A judge scores what the campaign's models answered, itself a model of the campaign."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import UserError
from core.request import Generate, Generated, Request, Response
from core.results import open_store
from core.scoring.statistics import interval
from flows.campaign import CampaignFailedError, campaign
from flows.rescore import rescore
from tests.flows.scripted import LIMIT, Engines, answer

JUDGE = {"model": "second", "prompt": "[judge] {{answer}}", "low": 0, "high": 100}


def judge(request: Request) -> Response:
    if isinstance(request, Generate) and request.prompt.startswith("[judge]"):
        return Generated(request.id, f"Well.\nRating: {request.id.split('/')[1]}", "stop", 9, 4)
    return answer(request)


@pytest.fixture
def judged(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "benchmarks": [{"name": "steelyard_arithmetic", "limit": LIMIT, "judge": JUDGE}]}


def test_verdicts_are_stored_under_the_models_that_answered(engines: Engines, judged: dict[str, Any]) -> None:
    engines.scripts["second"] = judge
    board = campaign(judged).leaderboard
    label = "steelyard_arithmetic@second"
    assert sorted(zip(board["model"], board["benchmark"], strict=True)) == [
        (model, benchmark) for model in ("first", "second") for benchmark in ("steelyard_arithmetic", label)
    ]
    rows = board[board["benchmark"] == label]
    assert set(rows["score"]) == {sum(range(LIMIT)) / LIMIT}
    assert set(rows["metric"]) == {"judge"}

    samples = open_store(judged["results"]).samples("flows")
    verdicts = samples[samples["benchmark"] == label]
    answers = samples[samples["benchmark"] == "steelyard_arithmetic"]
    assert len(verdicts) == 2 * LIMIT
    of_judge = answers[answers["model"] == "second"]["checkpoint"].unique()
    assert set(verdicts["checkpoint"]) == set(of_judge), "a verdict names the checkpoint that gave it"
    assert all(texts[0].startswith("Well.") for texts in verdicts["texts"])


def test_verdicts_on_docs_that_belong_together_are_clustered(
    engines: Engines, judged: dict[str, Any], tmp_path: Path
) -> None:
    rows = [{"q": f"{number} + 1 =", "a": str(number + 1), "passage": number // 2} for number in range(LIMIT)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    own = {
        "task": "own",
        "custom_dataset": "core.benchmarks.hooks.rows",
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "metadata": {"version": 1, "cluster": "passage", "files": {"test": str(tmp_path / "rows.jsonl")}},
    }
    text = yaml.safe_dump(own).replace("custom_dataset: ", "custom_dataset: !function ")
    (tmp_path / "own.yaml").write_text(text)
    engines.scripts["second"] = judge
    board = campaign({**judged, "benchmarks": [{"name": str(tmp_path / "own.yaml"), "judge": JUDGE}]}).leaderboard
    assert dict(zip(board["benchmark"], board["cluster"], strict=True)) == {"own": "passage", "own@second": "passage"}
    (low, high) = board[board["benchmark"] == "own@second"].iloc[0][["low", "high"]]
    ratings = list(range(LIMIT))
    assert (low, high) == pytest.approx(interval(ratings, clusters=[number // 2 for number in ratings]))


def test_verdicts_are_not_asked_for_twice_and_survive_a_rescore(engines: Engines, judged: dict[str, Any]) -> None:
    engines.scripts["second"] = judge
    campaign(judged)
    engines.built.clear()
    assert len(campaign(judged).leaderboard) == 4
    assert engines.built == {}
    assert rescore(judged).unchanged == tuple(
        f"{model} · steelyard_arithmetic{judge}" for judge in ("", "@second") for model in ("first", "second")
    )
    assert len(open_store(judged["results"]).leaderboard("flows")) == 4


def test_a_new_verdict_pattern_needs_no_judge(engines: Engines, judged: dict[str, Any]) -> None:
    engines.scripts["second"] = judge
    campaign(judged)
    engines.built.clear()
    done = rescore(
        {**judged, "benchmarks": [{**judged["benchmarks"][0], "judge": {**JUDGE, "verdict": r"Well.\s+R.*: (\d)"}}]}
    )
    assert done.rescored == ("first · steelyard_arithmetic@second", "second · steelyard_arithmetic@second")
    assert engines.built == {}


def test_a_judge_that_gives_no_verdict_fails_as_judge_alone(engines: Engines, judged: dict[str, Any]) -> None:
    with pytest.raises(CampaignFailedError, match="second: as judge: .*no verdict could be read"):
        campaign(judged)
    assert len(open_store(judged["results"]).leaderboard("flows")) == 2


def test_a_benchmark_without_generated_answers_has_no_judge(engines: Engines, spec: dict[str, Any]) -> None:
    asked = {**spec, "benchmarks": [{"name": "steelyard_facts", "limit": LIMIT, "judge": JUDGE}]}
    with pytest.raises((CampaignFailedError, UserError), match="no generated answers for a judge"):
        campaign(asked)
    assert engines.built == {}
