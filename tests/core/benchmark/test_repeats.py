"""What each of a doc's answers alone would score, and what a leaderboard says of that."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from core.benchmark.benchmark import load_benchmark
from core.benchmarks.hooks import humaneval_rows
from core.campaign import BenchmarkSpec
from core.request import Generated
from core.results import open_store
from core.sample import Scoring
from core.scoring.judge import Judging
from core.scoring.judge_spec import JudgeSpec
from core.scoring.statistics import repeated, spread
from core.store.quality import facts_of
from tests.core.store_parts import METADATA, make_cell

OWN = """
task: own
custom_dataset: !function core.benchmarks.hooks.rows
output_type: generate_until
test_split: test
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
repeats: 3
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
MAJORITY = "filter_list: [{name: vote, filter: [{function: majority_vote}, {function: take_first}]}]\n"
# Docs ask for 0, 1, 2; each has three answers.
SAID = [["0", "0", "1"], ["2", "1", "2"], ["2", "2", "2"]]
RIGHT = [[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]]


def own(folder: Path, lines: str = "") -> BenchmarkSpec:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"q": f"{n}?", "a": str(n)}) + "\n" for n in range(3)))
    metadata = f"metadata: {{version: 1, files: {{test: {folder}/rows.jsonl}}}}\n"
    (folder / "own.yaml").write_text(OWN + metadata + lines)
    return BenchmarkSpec(name=str(folder / "own.yaml"))


def score(spec: BenchmarkSpec, said: Sequence[Sequence[str]]) -> Scoring:
    benchmark = load_benchmark(spec, chat=None, seed=0)
    places = [request.id.split("/") for request in benchmark.requests()]
    texts = {"/".join(place): said[int(place[1])][int(place[3])] for place in places}
    return benchmark.score({key: Generated(key, text, "stop", 1, 1) for key, text in texts.items()})


def test_every_answer_counts_where_the_filter_takes_the_first(tmp_path: Path) -> None:
    scoring = score(own(tmp_path), SAID)
    assert scoring.headline.value == pytest.approx(2 / 3)
    assert scoring.repeats == repeated(RIGHT)


def test_a_vote_of_one_answer_is_that_answer(tmp_path: Path) -> None:
    scoring = score(own(tmp_path, MAJORITY), SAID)
    assert scoring.headline.value == pytest.approx(2 / 3)
    assert scoring.samples[1].filtered == {"vote": "2"}
    assert scoring.repeats == repeated(RIGHT)


def test_programs_are_not_run_again() -> None:
    docs = humaneval_rows()["test"]
    right, wrong = ([docs[n]["canonical_solution"] for n in range(2)], "    return None\n")
    scoring = score(BenchmarkSpec(name="humaneval", repeats=2, limit=2), [[right[0], wrong], [wrong, wrong]])
    assert scoring.headline.value == pytest.approx(0.25)
    assert scoring.repeats == repeated([[1, 0], [0, 0]])


def test_a_metric_that_needs_all_answers_has_no_spread(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "hooks.py").write_text(
        "def keep(resps, docs): return resps\n"
        "def all_alike(doc, results):\n    one, two, three = results[0]\n    return {'exact_match': one == two == three}\n"
    )
    keep = "filter_list: [{name: all, filter: [{function: custom, filter_fn: !function hooks.keep}]}]\n"
    with caplog.at_level(logging.WARNING):
        scoring = score(own(tmp_path, f"{keep}process_results: !function hooks.all_alike\n"), SAID)
    assert scoring.headline.value == pytest.approx(1 / 3)
    assert scoring.repeats is None
    assert "own: its answers have no score each, and so no spread: ValueError" in caplog.text


def test_one_answer_per_doc_has_no_spread() -> None:
    benchmark = load_benchmark(BenchmarkSpec(name="steelyard_arithmetic", limit=2), chat=None, seed=0)
    answers = {request.id: Generated(request.id, "1", "stop", 1, 1) for request in benchmark.requests()}
    assert benchmark.score(answers).repeats is None
    assert spread([[1.0], [], [0.0]]) is None


def test_verdicts_on_several_answers_are_spread_too(tmp_path: Path) -> None:
    judge = JudgeSpec(model="wise", low=0, high=5)
    judging = Judging(judge, "own", score(own(tmp_path), SAID).samples)
    verdicts = {
        request.id: Generated(request.id, f"Rating: {number % 4}", "stop", 1, 1)
        for number, request in enumerate(judging.requests())
    }
    assert judging.score(verdicts).repeats == repeated([[0, 1, 2], [3, 0, 1], [2, 3, 0]])


def test_the_leaderboard_has_it_from_the_commit_record(tmp_path: Path) -> None:
    scoring = score(own(tmp_path), SAID)
    store = open_store(str(tmp_path / "store"))
    store.commit(make_cell(), scoring, {**METADATA, **facts_of(scoring)})
    (row,) = store.leaderboard().to_dict("records")
    found = repeated(RIGHT)
    assert (row["repeats"], row["mean"], row["mean_stderr"]) == (3.0, found.value, found.stderr)
    assert (row["within"], row["between"]) == (found.within, found.between)


def test_what_cannot_be_known_is_null(tmp_path: Path) -> None:
    facts = facts_of(score(own(tmp_path).model_copy(update={"limit": 1}), SAID))
    assert json.loads(json.dumps(facts, allow_nan=False))["repeats"]["between"] is None
