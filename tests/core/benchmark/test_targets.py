"""Targets that no answer can be right for, told from rows alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.benchmark.benchmark import load_benchmark
from core.benchmark.needed import doubts
from core.campaign import BenchmarkSpec, DatasetsSpec
from core.errors import UserError
from tests.core.task_folder import CHOOSE, CSV, GENERATE, Function, write_task

NOT_ONE = "its target is not one of the choices ({!r})"


def faults(path: str) -> list[str]:
    found = load_benchmark(BenchmarkSpec(name=path), chat=None, seed=1).doubts
    return [line.partition(": ")[2] for line in found]


@pytest.mark.parametrize("target", [None, 2, -1, "2", "maybe"])
def test_what_is_no_choice_is_told(tmp_path: Path, target: Any) -> None:
    rows: list[dict[str, Any]] = [
        {"q": "1?", "gold": target},
        {"q": "2?", "gold": "no" if isinstance(target, str) else 1},
    ]
    assert faults(write_task(tmp_path, "t", CHOOSE, rows)) == [NOT_ONE.format(target)]


@pytest.mark.parametrize("targets", [(0, 1), ("yes", "no"), ([0, 1], [1]), (0.0, 1.0)])
def test_what_is_one_is_not(tmp_path: Path, targets: tuple[Any, Any]) -> None:
    assert faults(write_task(tmp_path, "t", CHOOSE, [{"q": str(gold), "gold": gold} for gold in targets])) == []


@pytest.mark.parametrize(("target", "wrong"), [([0, 2], 2), ([None], None)])
def test_each_of_several_targets_counts(tmp_path: Path, target: list[Any], wrong: Any) -> None:
    rows: list[dict[str, Any]] = [{"q": "1?", "gold": [0]}, {"q": "2?", "gold": target}]
    assert faults(write_task(tmp_path, "t", CHOOSE, rows)) == [NOT_ONE.format(wrong)]


def test_choices_that_differ_by_doc_are_those_of_the_doc(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"q": "1?", "gold": 2, "c": ["a", "b", "c"]}, {"q": "2?", "gold": 2, "c": ["a", "b"]}]
    task: dict[str, Any] = {**CHOOSE, "doc_to_choice": "c"}
    assert faults(write_task(tmp_path, "t", task, rows)) == [NOT_ONE.format(2)]
    metrics = [{"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True}]
    assert faults(write_task(tmp_path, "mutual", {**task, "metric_list": metrics}, rows)) == [NOT_ONE.format(2)]


def test_a_null_answer_to_generate_is_told_unless_the_task_scores_by_itself(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"q": "1?", "gold": None}, {"q": "2?", "gold": "b"}]
    task: dict[str, Any] = {**GENERATE, "doc_to_target": "gold"}
    assert faults(write_task(tmp_path, "t", task, rows)) == ["its target is null"]
    functions = "def results(doc, answers):\n    return {'exact_match': 1}\n"
    own = write_task(tmp_path, "own", task, rows, functions, process_results=Function("mine.results"))
    assert faults(own) == []


def test_a_target_that_the_task_cannot_make_costs_no_cell(tmp_path: Path) -> None:
    functions = "def target(doc):\n    return {'a': 0}[doc['gold']]\n"
    rows = [{"q": "1?", "gold": "a"}, {"q": "2?", "gold": "b"}]
    path = write_task(tmp_path, "t", CHOOSE, rows, functions, doc_to_target=Function("mine.target"))
    assert faults(path) == ["its target cannot be read: KeyError: 'b'"]


def test_plan_reads_rows_that_lie_on_disk(tmp_path: Path) -> None:
    spec = BenchmarkSpec(name=write_task(tmp_path, "nullgold", CHOOSE))
    (line,) = doubts([spec, BenchmarkSpec(name="gsm8k"), BenchmarkSpec(name="steelyard_facts")], DatasetsSpec())
    assert line.startswith("nullgold: 1 of 3 docs cannot be answered right")
    assert line.endswith(f"doc 2 of nullgold: {NOT_ONE.format(None)}")
    assert doubts([spec.model_copy(update={"limit": 2})], DatasetsSpec()) == []
    unlabelled = write_task(tmp_path, "unlabelled", CHOOSE, CSV.replace(",0", ",7").replace(",1", ",9"))
    with pytest.raises(UserError, match="no doc of 'unlabelled' can be answered right"):
        doubts([BenchmarkSpec(name=unlabelled)], DatasetsSpec())


def test_a_target_that_can_be_made_of_no_doc_is_refused(tmp_path: Path) -> None:
    functions = "def target(doc):\n    return {}[doc['gold']]\n"
    path = write_task(tmp_path, "t", GENERATE, CSV, functions, doc_to_target=Function("mine.target"))
    with pytest.raises(UserError, match="no doc of 't' can be answered right; doc 0 of t: its target cannot be read"):
        faults(path)
