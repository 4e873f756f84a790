"""The one number of a benchmark of several tasks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from core.sample import Score
from core.scoring.headline import headline


def row(task: str, value: float, metric: str = "acc", **fields: Any) -> Score:
    given = {"filter": "none", "stderr": 0.1, "docs": 10, "higher_is_better": True, "primary": True, **fields}
    return Score(task=task, metric=metric, value=value, **given)


def group(task: str, value: float, metric: str = "acc", **fields: Any) -> Score:
    return row(task, value, metric, group=True, **fields)


A, B, C = row("a", 0.2, docs=3), row("b", 0.4, docs=2), row("c", 0.9, docs=3)


def test_a_task_alone_is_its_own_score() -> None:
    assert headline("a", [A]) == (A, "")
    assert headline("part", [A, part := group("part", 0.2, docs=3)]) == (part, "")


def test_a_group_s_own_aggregate_stands_for_it() -> None:
    whole = group("whole", 0.28, docs=5)
    assert headline("whole", [A, B, group("part", 0.2), whole]) == (whole, "")


def test_a_subgroup_is_never_the_whole() -> None:
    """Case 06."""
    head, remark = headline("whole", [A, B, C, group("part", 0.28, docs=5)])
    assert (head.task, head.metric, head.value, head.docs) == ("whole", "mean of acc", pytest.approx(0.5), 8)
    assert head.stderr == pytest.approx(0.1 / math.sqrt(3))
    assert head.group
    assert remark == "the mean of its 3 tasks, each of one weight: the harness has no score for all of them"


def test_an_aggregate_of_some_tasks_is_not_the_whole_s() -> None:
    """As of ``leaderboard``, whose ``acc`` is that of one task of 39."""
    listed = [A, B, row("c", 0.9, "exact_match", docs=3), group("whole", 0.3, docs=5)]
    head, _ = headline("whole", listed)
    assert (head.metric, head.value, head.docs) == ("mean of acc, exact_match", pytest.approx(0.5), 8)


def test_of_several_aggregates_the_first_listed_counts_after_the_tasks_own_filter() -> None:
    tasks = [
        replace(each, metric="exact_match", filter=filter_, primary=filter_ == "strict")
        for each in (A, B)
        for filter_ in ("strict", "flexible")
    ]
    listed = [
        group("whole", 0.1, "acc", docs=3),
        group("whole", 0.5, "exact_match", filter="flexible"),
        group("whole", 0.3, "exact_match", filter="strict"),
    ]
    assert headline("whole", [*tasks, *listed])[0] == listed[2]


def test_a_metric_that_all_tasks_have_makes_the_mean_where_their_first_ones_differ() -> None:
    tasks = [row("a", 7.0, "perplexity", higher_is_better=False), row("a", 0.4, primary=False), row("b", 0.6)]
    head, _ = headline("whole", tasks)
    assert (head.metric, head.value, head.higher_is_better) == ("mean of acc", pytest.approx(0.5), True)


@pytest.mark.parametrize(
    "other",
    [
        row("b", 7.0, "perplexity", higher_is_better=False),
        row("b", 23.0, "bleu"),
        row("b", 0.2, "bits", higher_is_better=False),
    ],
)
def test_metrics_that_make_no_mean_make_none(other: Score) -> None:
    head, remark = headline("whole", [A, other])
    assert math.isnan(head.value)
    assert (head.task, head.metric, head.docs, head.stderr) == ("whole", f"acc, {other.metric}", 13, None)
    assert remark == f"no score for all of its 2 tasks, whose metrics make no mean (acc, {other.metric})"


def test_one_metric_that_is_better_up_here_and_down_there_makes_no_mean() -> None:
    assert math.isnan(headline("whole", [A, replace(B, higher_is_better=False)])[0].value)


def test_a_task_without_standard_error_leaves_the_mean_without() -> None:
    assert headline("whole", [A, replace(B, stderr=None)])[0].stderr is None


def test_tasks_after_unlike_filters_are_said_to_be() -> None:
    head, _ = headline("whole", [A, replace(B, filter="strict")])
    assert (head.filter, head.metric) == ("mixed", "mean of acc")
