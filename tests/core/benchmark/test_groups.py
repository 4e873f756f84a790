"""Groups: what lm-eval itself aggregates, over the docs it is over, and never a part under the whole's name."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from core.benchmark.benchmark import load_benchmark
from core.campaign import BenchmarkSpec
from core.request import Generate, Generated, Loglikelihood, Request, Response, Scored
from core.results import open_store
from core.sample import Scoring
from core.store.quality import facts_of
from tests.core.store_parts import METADATA, make_cell

CHOICE = """
output_type: multiple_choice
doc_to_choice: ['yes', 'no']
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
ANSWER = """
output_type: generate_until
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
RAIN = """
output_type: loglikelihood_rolling
doc_to_target: q
metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]
"""


def write_task(folder: Path, name: str, golds: list[int], kind: str = CHOICE) -> None:
    rows = "".join(json.dumps({"q": f"{name} {n}?", "gold": gold}) + "\n" for n, gold in enumerate(golds))
    (folder / f"{name}.jsonl").write_text(rows)
    (folder / f"{name}.yaml").write_text(
        f"task: {name}\ncustom_dataset: !function core.benchmarks.hooks.rows\ntest_split: test\ndoc_to_text: '{{{{q}}}}'\n"
        f"metadata: {{version: 1, files: {{test: {folder}/{name}.jsonl}}}}\n"
        + ("" if "doc_to_target" in kind else "doc_to_target: gold\n")
        + kind
    )


def write_group(folder: Path, name: str, members: str, aggregates: str = "", file: str = "") -> BenchmarkSpec:
    path = folder / f"{file or name}.yaml"
    path.write_text(f"group: {name}\ntask: [{members}]\n" + (aggregates and f"aggregate_metric_list: [{aggregates}]\n"))
    return BenchmarkSpec(name=str(path))


def right(request: Request) -> Response:
    """An answer "yes" each time, the choice 0."""
    match request:
        case Loglikelihood(id=key, continuation=continuation):
            return Scored(key, -1.0 if "yes" in continuation else -2.0, False, 1, 1)
        case Generate(id=key):
            return Generated(key, "0", "stop", 1, 1)
        case _:
            return Scored(request.id, -9.0, False, 3, 1)


def score(spec: BenchmarkSpec) -> Scoring:
    benchmark = load_benchmark(spec, chat=None, seed=0)
    return benchmark.score({request.id: right(request) for request in benchmark.requests()})


def rows_of(scoring: Scoring) -> dict[tuple[str, str], tuple[float, int]]:
    return {(row.task, row.metric): (row.value, row.docs) for row in scoring.scores if row.group}


def test_the_row_of_a_group_without_aggregate_is_all_of_its_tasks(tmp_path: Path) -> None:
    """Case 06: a group of an aggregated group of five docs, and a task of three."""
    write_task(tmp_path, "a", [0, 1, 0])
    write_task(tmp_path, "b", [0, 1])
    write_task(tmp_path, "alone", [0, 0, 0])
    write_group(tmp_path, "part", "a, b", "{metric: acc, weight_by_size: true}")
    scoring = score(write_group(tmp_path, "whole", "part, alone"))
    head = scoring.headline
    assert (head.task, head.metric, head.docs, head.group) == ("whole", "mean of acc", 8, True)
    assert head.value == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert rows_of(scoring) == {("part", "acc"): (pytest.approx(3 / 5), 5), ("whole", "mean of acc"): (head.value, 8)}


def test_what_it_is_stands_under_its_row(tmp_path: Path) -> None:
    write_task(tmp_path, "a", [0, 1, 0])
    write_task(tmp_path, "b", [0, 1])
    scoring = score(write_group(tmp_path, "whole", "a, b"))
    store = open_store(str(tmp_path / "results"))
    store.commit(make_cell(), scoring, {**METADATA, **facts_of(scoring)})
    (notes,) = store.leaderboard()["notes"]
    assert notes.startswith("the mean of its 2 tasks, each of one weight")


def test_an_aggregate_over_some_of_the_tasks_is_no_score_of_the_whole(tmp_path: Path) -> None:
    write_task(tmp_path, "a", [0, 1, 0])
    write_task(tmp_path, "said", [0, 1], ANSWER)
    scoring = score(write_group(tmp_path, "whole", "a, said", "{metric: acc}"))
    head = scoring.headline
    assert (head.task, head.metric, head.docs) == ("whole", "mean of acc, exact_match", 5)
    assert head.value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert rows_of(scoring)["whole", "acc"] == (pytest.approx(2 / 3), 3), "the harness's own number, of its three docs"
    assert [row.primary for row in scoring.scores if (row.task, row.metric) == ("whole", "acc")] == [False]


def test_metrics_that_make_no_mean_give_the_whole_no_score(tmp_path: Path) -> None:
    write_task(tmp_path, "a", [0, 1, 0])
    write_task(tmp_path, "rain", [0, 1], RAIN)
    scoring = score(write_group(tmp_path, "whole", "a, rain"))
    assert math.isnan(scoring.headline.value)
    assert (scoring.headline.task, scoring.headline.docs) == ("whole", 5)
    store = open_store(str(tmp_path / "results"))
    store.commit(make_cell(), scoring, {**METADATA, **facts_of(scoring)})
    (board,) = store.leaderboard().to_dict("records")
    assert board["score"] is None
    assert board["notes"].startswith(
        "no score for all of its 2 tasks, whose metrics make no mean (acc, word_perplexity)"
    )


def test_a_group_that_names_a_task_twice_counts_its_docs_once(tmp_path: Path) -> None:
    """The harness takes ``a`` twice into its mean, which stays its number."""
    write_task(tmp_path, "a", [0, 1, 0])
    write_task(tmp_path, "b", [0, 1])
    write_group(tmp_path, "part", "a, b")
    scoring = score(write_group(tmp_path, "whole", "a, part", "{metric: acc, weight_by_size: true}"))
    assert rows_of(scoring) == {("whole", "acc"): (pytest.approx(5 / 8), 5)}


def test_a_group_s_row_has_its_name_whatever_its_file_s(tmp_path: Path) -> None:
    write_task(tmp_path, "a", [0, 1, 0])
    write_task(tmp_path, "b", [0, 1])
    assert score(write_group(tmp_path, "whole", "a, b", file="mine")).headline.task == "whole"
    assert score(write_group(tmp_path, "sum", "a, b", "{metric: acc}", file="own")).headline.task == "sum"


def test_a_group_or_tag_that_is_listed_with_overrides_keeps_all_its_tasks(tmp_path: Path) -> None:
    """As ``openllm`` lists mmlu and truthfulqa; the harness (0.4.13) keeps the last task of each, under the name of the whole."""
    write_task(tmp_path, "a", [0, 1, 0])
    for name in ("b", "c", "d"):
        write_task(tmp_path, name, [0, 1], CHOICE + ("" if name == "b" else "tag: pair\n"))
    write_group(tmp_path, "part", "a, b", "{metric: acc}")
    scoring = score(write_group(tmp_path, "whole", "{task: part, num_fewshot: 0}, {task: pair, num_fewshot: 0}"))
    assert {sample.task for sample in scoring.samples} == {"a", "b", "c", "d"}
    assert (scoring.headline.task, scoring.headline.docs) == ("whole", 9)
