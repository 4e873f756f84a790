"""Values that stand for no doc: RULER gives a doc of 8,192 tokens -1 for ``4096``, which its own aggregation leaves out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

Aggregate = Callable[[list[float]], float]


def leave_out_placeholders(
    aggregations: Mapping[str, Aggregate],
    raw: MutableMapping[tuple[str, str], list[Any]],
    docs: MutableMapping[tuple[str, str], list[int]],
    by_doc: Mapping[int, dict[str, Any]],
) -> None:
    """Take out of (metric, filter) → values those that stand for no doc, and metrics that have no others.

    ``docs`` says of which docs the values are, ``by_doc`` has each doc's values by ``metric,filter``. Left in, -1 would be a score,
    and count docs that were not scored.
    """
    for key, found in list(raw.items()):
        stands_for_none = _placeholder(found, aggregations.get(key[0]))
        if stands_for_none is None:
            continue
        kept = [(doc_id, value) for doc_id, value in zip(docs[key], found, strict=True) if value != stands_for_none]
        docs[key], raw[key] = [doc_id for doc_id, _ in kept], [value for _, value in kept]
        if not kept:
            del raw[key], docs[key]
        for values in by_doc.values():
            if values.get(",".join(key)) == stands_for_none:
                del values[",".join(key)]


def _placeholder(values: list[Any], aggregate: Aggregate | None) -> float | None:
    """Return the least value where an aggregation of the task's own makes nothing of it beside smaller or larger ones."""
    from lm_eval.api.metrics import mean

    if aggregate in (None, mean) or not all(isinstance(value, int | float) for value in values):
        return None
    least = min(values, default=math.nan)
    if not math.isfinite(least):
        return None
    try:
        return least if all(aggregate([least, other, other]) == other for other in (least - 1, least + 1)) else None
    except Exception:  # it takes no plain numbers
        return None
