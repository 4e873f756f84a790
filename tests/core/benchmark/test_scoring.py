"""Docs that a filter, a metric or a target keeps from being scored: each costs itself, and says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core.benchmark.benchmark import Benchmark, load_benchmark
from core.campaign import BenchmarkSpec
from core.errors import SteelyardError, UserError
from core.request import Generate, Generated, Request, Response, Scored
from core.sample import Scoring
from core.store.quality import facts_of, notes, quality_of
from tests.core.task_folder import CHOOSE, GENERATE, Function, write_task

ROWS = [{"q": f"{number}?", "gold": str(number)} for number in range(5)]
SECOND = {"name": "second", "filter": [{"function": "regex", "regex_pattern": "(.)", "group_select": 3}]}
SECOND["filter"].append({"function": "take_first"})  # type: ignore[attr-defined]
PLAIN = {"name": "plain", "filter": [{"function": "take_first"}]}


def load(path: str, **fields: Any) -> Benchmark:
    return load_benchmark(BenchmarkSpec(name=path, **fields), chat=None, seed=1)


def answers(benchmark: Benchmark, texts: Mapping[int, str] | None = None) -> dict[str, Response]:
    """Generations as ``texts`` says by doc, else "yes"; of choices the first is the likeliest."""

    def answer(request: Request) -> Response:
        doc, number = map(int, request.id.split("/")[-3:-1])
        if isinstance(request, Generate):
            return Generated(request.id, (texts or {}).get(doc, "yes"), "stop", 5, 1)
        return Scored(request.id, -1.0 - number, number == 0, 1, 5)

    return {request.id: answer(request) for request in benchmark.requests()}


def score(benchmark: Benchmark, texts: Mapping[int, str] | None = None) -> Scoring:
    return benchmark.score(answers(benchmark, texts))


def errors(scoring: Scoring) -> list[str | None]:
    return [sample.error for sample in scoring.samples]


def values(scoring: Scoring) -> dict[tuple[str, str], tuple[float, int]]:
    return {(each.metric, each.filter): (each.value, each.docs) for each in scoring.scores}


def test_a_null_target_costs_its_doc_and_numbers_beside_it_are_indices(tmp_path: Path) -> None:
    """pandas reads a column with a gap as 0.0, 1.0 and NaN."""
    benchmark = load(write_task(tmp_path, "nullgold", CHOOSE))
    scoring = score(benchmark)
    assert errors(scoring) == [
        None,
        None,
        "not scored: doc 2 of nullgold: its target is not one of the choices (None)",
    ]
    assert [sample.value for sample in scoring.samples] == [1.0, 0.0, None]
    assert (scoring.headline.value, scoring.headline.docs) == (0.5, 2)
    counts = quality_of(scoring.samples)
    assert (counts.docs, counts.failed, counts.unscored) == (3, 0, 1)
    assert notes(facts_of(scoring)["quality"]) == "1 of 3 docs not scored; 1 of 3 docs: target outside the choices"


def test_a_filter_that_one_answer_breaks_costs_that_doc(tmp_path: Path) -> None:
    benchmark = load(write_task(tmp_path, "second", GENERATE, ROWS, doc_to_target="s", filter_list=[SECOND]))
    scoring = score(benchmark, dict.fromkeys((0, 1, 3), "yess") | {2: "no", 4: "n"})
    assert [error is None for error in errors(scoring)] == [True, True, False, True, False]
    assert errors(scoring)[2] == "not scored: doc 2 of second: filter 'second': IndexError: list index out of range"
    assert values(scoring) == {("exact_match", "second"): (1.0, 3)}
    assert scoring.samples[2].texts == ("no",), "what was answered stays"


def test_a_filter_that_fails_costs_its_own_scores_alone(tmp_path: Path) -> None:
    benchmark = load(write_task(tmp_path, "two", GENERATE, ROWS, filter_list=[PLAIN, SECOND]))
    scoring = score(benchmark, {1: "yes, yes"})
    assert values(scoring) == {("exact_match", "plain"): (0.8, 5), ("exact_match", "second"): (0.0, 1)}
    assert scoring.samples[0].value == 1.0
    assert scoring.samples[0].filtered == {"plain": "yes"}
    assert "filter 'second'" in str(scoring.samples[0].error)
    whole = score(load(write_task(tmp_path, "whole", GENERATE, ROWS, filter_list=[PLAIN, SECOND])))
    assert values(whole) == {("exact_match", "plain"): (1.0, 5)}, "one that answers no doc has no score"


def test_a_filter_over_all_docs_at_once_sees_all_that_it_can_take(tmp_path: Path) -> None:
    """It says how many answers it was given; one of them is too short for it."""
    functions = "def counted(resps, docs):\n    return [[str(len(resps))] for each in resps if each[0][1]]\n"
    chain = {"name": "counted", "filter": [{"function": "custom", "filter_fn": Function("mine.counted")}]}
    chain["filter"].append({"function": "take_first"})  # type: ignore[attr-defined]
    path = write_task(tmp_path, "counted", GENERATE, ROWS, functions, doc_to_target="4", filter_list=[chain])
    scoring = score(load(path), {3: "y"})
    assert [sample.filtered for sample in scoring.samples] == [{"counted": "4"}] * 3 + [{}, {"counted": "4"}]
    assert values(scoring) == {("exact_match", "counted"): (1.0, 4)}


def test_a_filter_that_takes_no_doc_is_not_tried_on_every_one(tmp_path: Path) -> None:
    functions = (
        f"def broken(resps, docs):\n    open({str(tmp_path / 'calls')!r}, 'a').write('.')\n    raise ValueError(1)\n"
    )
    chain = {"name": "broken", "filter": [{"function": "custom", "filter_fn": Function("mine.broken")}]}
    rows = [{"q": f"{number}?"} for number in range(1000)]
    scoring = score(load(write_task(tmp_path, "t", GENERATE, rows, functions, filter_list=[PLAIN, chain])))
    assert values(scoring) == {("exact_match", "plain"): (1.0, 1000)}
    assert errors(scoring) == [
        f"not scored: doc {number} of t: filter 'broken': ValueError: 1" for number in range(1000)
    ]
    assert len((tmp_path / "calls").read_text()) < 100


def test_a_doc_that_the_task_s_own_function_cannot_score_costs_itself(tmp_path: Path) -> None:
    functions = "def results(doc, answers):\n    return {'hit': 1 / (int(doc['gold']) - 3)}\n"
    metrics = [{"metric": "hit", "aggregation": "mean", "higher_is_better": True}]
    path = write_task(
        tmp_path, "own", GENERATE, ROWS, functions, metric_list=metrics, process_results=Function("mine.results")
    )
    scoring = score(load(path))
    assert errors(scoring)[3] == (
        "not scored: doc 3 of own: its metrics, after filter 'none': ZeroDivisionError: division by zero"
    )
    assert scoring.headline.docs == 4


def test_where_no_doc_can_be_scored_task_doc_and_reason_are_named(tmp_path: Path) -> None:
    functions = "def results(doc, answers):\n    return {'hit': doc['nowhere']}\n"
    metrics = [{"metric": "hit", "aggregation": "mean", "higher_is_better": True}]
    path = write_task(
        tmp_path, "fault", GENERATE, ROWS, functions, metric_list=metrics, process_results=Function("mine.results")
    )
    said = (
        "no doc could be scored; the first said: doc 0 of fault: its metrics, after filter 'none': KeyError: 'nowhere'"
    )
    with pytest.raises(SteelyardError, match=said):
        score(load(path))


def aggregated(tmp_path: Path, functions: str, results: str) -> Scoring:
    metrics = [
        {"metric": name, "aggregation": how, "higher_is_better": True}
        for name, how in (("broken", Function("mine.broken")), ("hit", "mean"))
    ]
    code = f"{functions}\ndef results(doc, answers):\n    return {results}\n"
    path = write_task(
        tmp_path, "agg", GENERATE, ROWS, code, metric_list=metrics, process_results=Function("mine.results")
    )
    return score(load(path))


@pytest.mark.parametrize(
    ("body", "why"),
    [("raise ValueError('no such thing')", "ValueError: no such thing"), ("return {'a': 1}", "TypeError: float")],
)
def test_an_aggregate_that_fails_costs_its_metric(tmp_path: Path, body: str, why: str) -> None:
    scoring = aggregated(tmp_path, f"def broken(items):\n    {body}", "{'broken': 1, 'hit': 1}")
    assert values(scoring) == {("hit", "none"): (1.0, 5)}
    assert errors(scoring) == [None] * 5
    (lost,) = scoring.lost
    assert lost.startswith(f"agg: broken after filter 'none' has no score: {why}")
    assert facts_of(scoring)["lost"] == [lost]


def test_a_value_that_is_no_number_among_numbers_costs_its_doc(tmp_path: Path) -> None:
    results = "{'broken': 1, 'hit': None if doc['gold'] == '1' else 1}"
    scoring = aggregated(tmp_path, "def broken(items):\n    return sum(items)", results)
    assert values(scoring) == {("broken", "none"): (5.0, 5), ("hit", "none"): (1.0, 4)}
    assert errors(scoring)[1] == "not scored: doc 1 of agg: its hit is no number (None)"
    assert scoring.lost == ()


def test_where_no_aggregate_is_left_the_first_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(SteelyardError, match="agg: no metric could be aggregated; the first said: ValueError: all"):
        aggregated(tmp_path, "def broken(items):\n    raise ValueError('all')", "{'broken': 1}")


def test_answers_of_a_doc_that_was_not_scored_are_not_lost(tmp_path: Path) -> None:
    benchmark = load(write_task(tmp_path, "second", GENERATE, ROWS, filter_list=[SECOND]))
    given = answers(benchmark, {2: "longer"})
    missing = next(iter(given))
    scoring = benchmark.score({key: response for key, response in given.items() if key != missing})
    assert set(benchmark.recall(scoring.samples)) == set(given) - {missing}
    assert benchmark.score(benchmark.recall(scoring.samples)) == scoring


def test_targets_that_cannot_be_right_are_known_before_anything_is_asked(tmp_path: Path) -> None:
    path = write_task(tmp_path, "nullgold", CHOOSE)
    assert load(path).doubts == ["doc 2 of nullgold: its target is not one of the choices (None)"]
    with pytest.raises(
        UserError, match="no doc of 'none' can be answered right; doc 0 of none: its target is not one of"
    ):
        load(write_task(tmp_path, "none", CHOOSE, [{"q": "1?", "gold": -1}, {"q": "2?", "gold": -1}]))
