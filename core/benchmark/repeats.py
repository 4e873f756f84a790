"""Docs that are answered more than once: what each answer alone would score, by the task's own filter and metric (lm-eval 0.4.13).

How much a score owes to chance in sampling and how much to which docs were asked is told by these values
(`core.scoring.statistics.repeated`), whichever of its answers the task's filter counts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.benchmark.code_metrics import runs_in_sandbox

PASS_AT_1 = ("pass@1", "pass_at_1")

log = logging.getLogger("steelyard.results")


def answer_values(
    name: str, task: Any, by_doc: Mapping[int, Sequence[Any]], primary: str, values: Mapping[int, float]
) -> list[list[float]]:
    """Return the primary metric's number of each single answer, a list per doc of ``by_doc``, its answered and filtered instances.

    ``values`` is the doc's own number. Empty where docs have one answer each, where the number exists over all docs only, and where
    it would take running programs again; which of those passed is told by pass@1.
    """
    metric, filter_ = primary.rsplit(",", 1)
    instances = [instance for group in by_doc.values() for instance in group]
    if not any(len(instance.resps) > 1 for instance in instances):
        return []
    if runs_in_sandbox(task) or (task.get_config("metadata") or {}).get("runs_code"):
        return list(_passes(by_doc, filter_, values)) if metric in PASS_AT_1 else []
    chain = next(each for each in task._filters if each.name == filter_)
    rows: dict[int, list[float]] = {doc_id: [] for doc_id in values}
    given = {id(instance): (instance.resps, instance.filtered_resps) for instance in instances}
    try:
        for repeat in range(max(len(instance.resps) for instance in instances)):
            asked = {doc_id: by_doc[doc_id] for doc_id in rows if len(given[id(by_doc[doc_id][0])][0]) > repeat}
            for instance in (each for group in asked.values() for each in group):
                instance.resps, instance.filtered_resps = [given[id(instance)][0][repeat]], {}
            chain.apply([instance for group in asked.values() for instance in group])
            for doc_id, group in asked.items():
                answers = [instance.filtered_resps[filter_] for instance in group]
                rows[doc_id].append(float(task.process_results(group[0].doc, answers)[metric]))
    except Exception as error:  # functions that expect all answers of a doc raise anything
        log.warning("%s: its answers have no score each, and so no spread: %s: %s", name, type(error).__name__, error)
        return []
    finally:
        for instance in instances:
            instance.resps, instance.filtered_resps = given[id(instance)]
    return list(rows.values())


def _passes(by_doc: Mapping[int, Sequence[Any]], filter_: str, values: Mapping[int, float]) -> Iterator[list[float]]:
    """Yield which answers passed, as 1 and 0 in no order, where pass@1 counts all answers of a doc."""
    for doc_id, rate in values.items():
        instance = by_doc[doc_id][0]
        answers = instance.filtered_resps[filter_]
        if isinstance(answers, list | tuple) and len(answers) == len(instance.resps):
            yield [float(number < round(rate * len(answers))) for number in range(len(answers))]
