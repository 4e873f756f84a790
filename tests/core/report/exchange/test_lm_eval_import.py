"""The harness's own results as cells: a group's row is all of its tasks."""

from __future__ import annotations

from typing import Any

import pytest

from core.report.exchange.lm_eval_import import import_results
from core.sample import Scoring
from core.store.quality import facts_of


def task(value: float, docs: int, metric: str = "acc") -> dict[str, Any]:
    return {f"{metric},none": value, f"{metric}_stderr,none": 0.1, "sample_len": docs}


def imported(**groups: dict[str, Any]) -> Scoring:
    """Import ``whole``, which holds ``part`` of two tasks and ``alone``; ``groups`` are those that the harness aggregated."""
    own = {"a": task(0.2, 3), "b": task(0.4, 2), "alone": task(0.9, 3)}
    found = {
        "results": {**own, "part": {"alias": "part"}, "whole": {"alias": "whole"}, **groups},
        "groups": groups,
        "group_subtasks": {"whole": ["part", "alone"], "part": ["a", "b"]},
        "configs": {name: {"metric_list": [{"metric": "acc"}]} for name in own},
        "higher_is_better": {name: {"acc": True} for name in (*own, *groups)},
        "model_name": "tiny",
    }
    ((cell, scoring),) = import_results(found, lambda task: None)
    assert cell.benchmark == "whole"
    return scoring


def test_a_subgroup_s_aggregate_is_not_the_whole_s() -> None:
    scoring = imported(part=task(0.28, 5))
    head = scoring.headline
    assert (head.task, head.metric, head.docs, head.value) == ("whole", "mean of acc", 8, pytest.approx(0.5))
    assert facts_of(scoring)["remark"].startswith("the mean of its 3 tasks")


def test_the_whole_s_own_aggregate_is() -> None:
    scoring = imported(part=task(0.28, 5), whole=task(0.5125, 8))
    assert (scoring.headline.task, scoring.headline.value, scoring.headline.docs) == ("whole", 0.5125, 8)
    assert "remark" not in facts_of(scoring)


def test_an_aggregate_of_what_only_some_tasks_have_is_not() -> None:
    scoring = imported(whole=task(0.7, 5, "exact_match"))
    assert (scoring.headline.metric, scoring.headline.value) == ("mean of acc", pytest.approx(0.5))
