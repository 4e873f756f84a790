"""Values that stand for no doc are no scores."""

from __future__ import annotations

from typing import Any

import pytest
from lm_eval.api.registry import aggregation_registry

from core.benchmark.placeholders import leave_out_placeholders


def ruler(values: list[float]) -> float:
    """As RULER aggregates."""
    kept = [value for value in values if value != -1]
    return sum(kept) / len(kept) if kept else -1


def left(values: list[Any], aggregate: Any = ruler) -> list[Any] | None:
    raw = {("4096", "none"): values}
    docs = {("4096", "none"): list(range(len(values)))}
    leave_out_placeholders({"4096": aggregate}, raw, docs, {})
    assert [values[doc_id] for doc_id in docs.get(("4096", "none"), [])] == raw.get(("4096", "none"), [])
    return raw.get(("4096", "none"))


def test_what_ruler_leaves_out_counts_for_nothing() -> None:
    from lm_eval.tasks.ruler.common_utils import aggregate_metrics

    assert left([-1.0, 0.5, -1.0, 0.0], aggregate_metrics) == [0.5, 0.0]
    assert left([-1.0, -1.0], aggregate_metrics) is None
    assert left([0.0, 0.0], aggregate_metrics) == [0.0, 0.0]


def test_the_doc_has_no_such_value_either() -> None:
    by_doc = {0: {"4096,none": -1.0, "8192,none": 1.0}, 1: {"4096,none": 0.0}}
    key = ("4096", "none")
    leave_out_placeholders({"4096": ruler}, {key: [-1.0, 0.0]}, {key: [0, 1]}, by_doc)
    assert by_doc == {0: {"8192,none": 1.0}, 1: {"4096,none": 0.0}}


@pytest.mark.parametrize(
    "aggregate", [max, min, sum, len, lambda values: None, lambda values: values["key"], *aggregation_registry.keys()]
)
@pytest.mark.parametrize(
    "values", [[-1.0, -1.0], [-1.0, 1.0], [0.0, 0.0], [1.0], [(1, 2), (0, 1)], [float("nan"), 1.0], []]
)
def test_other_aggregations_keep_every_value(aggregate: Any, values: list[Any]) -> None:
    known = aggregation_registry.get(aggregate) if isinstance(aggregate, str) else aggregate
    assert left(list(values), known) is not None
