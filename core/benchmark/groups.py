"""Scores of groups, as lm-evaluation-harness (0.4.13) aggregates them, each with the docs that it is over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from core.sample import Score
from core.scoring.headline import covering


def group_scores(groups: Mapping[str, Any], metrics: Mapping[str, Any], scores: Iterable[Score]) -> Iterator[Score]:
    """Yield the rows of lm-eval's groups: ``metrics`` has its flat results by name, ``scores`` the rows of all tasks.

    Where the harness averages those tasks that have a metric, docs are theirs. A row over all tasks of its group is primary; there
    may be none. A task that a group holds twice counts twice in the harness's mean, and its docs once.
    """
    by_task: dict[str, list[Score]] = {}
    for score in scores:
        by_task.setdefault(score.task, []).append(score)
    for name, group in groups.items():
        tasks = {task.task_name: by_task[task.task_name] for task in group.get_all_tasks()}
        rows = list(_rows(name, metrics.get(name) or {}, [row for rows in tasks.values() for row in rows]))
        chosen = covering(rows, tasks)
        yield from (replace(row, primary=row is chosen) for row in rows)


def _rows(name: str, found: Mapping[str, Any], scores: list[Score]) -> Iterator[Score]:
    for key in found:
        metric, comma, filter_ = key.rpartition(",")
        parts = [row for row in scores if (row.metric, row.filter) == (metric, filter_)]
        if not comma or not parts:
            continue
        stderr = found.get(f"{metric}_stderr,{filter_}")
        yield Score(
            task=name,
            metric=metric,
            filter=filter_,
            value=float(found[key]),
            stderr=float(stderr) if isinstance(stderr, int | float) else None,
            docs=sum(row.docs for row in parts),
            higher_is_better=all(row.higher_is_better for row in parts),
            primary=False,
            group=True,
        )
