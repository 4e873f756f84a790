"""The one number of a benchmark of several tasks: its group's own aggregate, or the mean of its tasks, never a part of them.

lm-evaluation-harness gives a group a score only where its YAML lists ``aggregate_metric_list``, and averages those tasks that have
the metric listed, however few: its ``leaderboard`` lists seven metrics, none of which all tasks have. What does not cover
every task is no score of the whole here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from core.sample import Score

MEAN_OF = "mean of "
MIXED = "mixed"  # filter of a mean over tasks that do not share one

Tasks = Mapping[str, Sequence[Score]]  # rows by task


def headline(name: str, scores: Iterable[Score]) -> tuple[Score, str]:
    """Return the score of the benchmark ``name`` from those of its tasks and groups, and how it came about where that must be said.

    A task alone is its own score. The value is NaN where tasks have metrics that make no mean: each then stands in its own rows.
    """
    listed = list(scores)
    tasks: dict[str, list[Score]] = {}
    for score in listed:
        if not score.group:
            tasks.setdefault(score.task, []).append(score)
    own = covering([score for score in listed if score.group and score.task == name], tasks)
    if own is not None:
        return own, ""
    if len(tasks) == 1:
        return _primary(*tasks.values()), ""
    return _mean(name, tasks)


def covering(own: Sequence[Score], tasks: Tasks) -> Score | None:
    """Return which of a group's own rows stands for it; None where none is over all of its ``tasks``.

    It is of the first metric that the group lists, after the filter of its tasks' own primary scores where they share one.
    """
    whole = [row for row in own if all(any(_key(row) == _key(each) for each in rows) for rows in tasks.values())]
    alike = [row for row in whole if row.metric == whole[0].metric]
    usual = {_primary(rows).filter for rows in tasks.values()}
    return next((row for row in alike if {row.filter} == usual), next(iter(alike), None))


def _key(score: Score) -> tuple[str, str]:
    return score.metric, score.filter


def _primary(rows: Sequence[Score]) -> Score:
    return next((row for row in rows if row.primary), rows[0])


def _mean(name: str, tasks: Tasks) -> tuple[Score, str]:
    """Return the mean of tasks, each of one weight."""
    metric = _shared_metric(tasks)
    rows = [_row_of(metric, each) for each in tasks.values()]
    metrics = ", ".join(dict.fromkeys(row.metric for row in rows))
    filters = {row.filter for row in rows}
    unlike = metric is None and not _on_one_scale(rows)
    score = Score(
        task=name,
        metric=metrics if unlike else MEAN_OF + metrics,
        filter=filters.pop() if len(filters) == 1 else MIXED,
        value=math.nan if unlike else sum(row.value for row in rows) / len(rows),
        stderr=None if unlike else _stderr(rows),
        docs=sum(row.docs for row in rows),
        higher_is_better=rows[0].higher_is_better,
        primary=True,
        group=True,
    )
    if unlike:
        return score, f"no score for all of its {len(rows)} tasks, whose metrics make no mean ({metrics})"
    return score, f"the mean of its {len(rows)} tasks, each of one weight: the harness has no score for all of them"


def _shared_metric(tasks: Tasks) -> str | None:
    """Return the metric that every task has and most count first, better in one direction; None where there is none."""
    counts = Counter(_primary(rows).metric for rows in tasks.values())
    names = dict.fromkeys(
        [*(name for name, _ in counts.most_common()), *(row.metric for row in next(iter(tasks.values())))]
    )
    for name in names:
        own = [[row.higher_is_better for row in rows if row.metric == name] for rows in tasks.values()]
        if all(own) and len({better for each in own for better in each}) == 1:
            return name
    return None


def _row_of(metric: str | None, rows: Sequence[Score]) -> Score:
    primary = _primary(rows)
    if metric in (None, primary.metric):
        return primary
    return next(row for row in rows if row.metric == metric)


def _on_one_scale(rows: Sequence[Score]) -> bool:
    """Return whether the mean of different metrics means something: shares and correlations, which are better the higher."""
    return all(row.higher_is_better and abs(row.value) <= 1.0 for row in rows)


def _stderr(rows: Sequence[Score]) -> float | None:
    """Return the standard error of a mean of independent tasks, √(Σ stderr²)/tasks, as the harness's ``unweighted_mean_stderr``."""
    known = [row.stderr for row in rows if row.stderr is not None and math.isfinite(row.stderr)]
    return math.sqrt(sum(stderr**2 for stderr in known)) / len(rows) if len(known) == len(rows) else None
