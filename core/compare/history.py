"""Scores of a model line over its revisions, run after run, and where they changed for good."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.board.select import Selection, select
from core.compare.clusters import cluster_keys
from core.compare.paired import PairedComparison, compare_paired
from core.compare.sides import runs_and_records
from core.compare.statistics import LEVEL, Weights, estimate, interval

if TYPE_CHECKING:
    import pandas as pd

    from core.results import Store

HISTORY_COLUMNS = (
    "model",
    "benchmark",
    "metric",
    "committed",
    "campaign",  # that asked first; None where no run did
    "run",
    "revision",
    "score",
    "low",
    "high",
    "difference",  # to the first revision since the last change, on the docs both have a value for
    "p",
    "change",  # "better" or "worse" where that difference is significant, else ""
    "fingerprint",
)
BETTER, WORSE = "better", "worse"


@dataclass(frozen=True)
class _Point:
    """One revision of a line on one benchmark."""

    campaign: str | None
    run: str
    record: Mapping[str, Any]


def history(store: Store, campaign: str | None = None, selection: Selection | None = None) -> pd.DataFrame:
    """Return `HISTORY_COLUMNS`, one row per model, benchmark and cell, oldest first.

    A line is what has one model name. A revision is a change where its difference to the first one since the last change is
    significant, doc by doc (`core.compare.paired`), at 5% divided by the line's number of later revisions (Bonferroni): so slow
    drift is found too. A cell that several runs share comes once. Raises `core.errors.StoreError`, and `UserError` for a
    selection that nothing fits.
    """
    import pandas as pd

    runs, records = runs_and_records(store, campaign)
    lines = _lines(runs, records, campaign)
    chosen = pd.DataFrame([(*key,) for key in lines], columns=["model", "benchmark"])
    rows: list[dict[str, Any]] = []
    kept = select(chosen, selection or Selection())
    for model, benchmark in sorted(zip(kept["model"], kept["benchmark"], strict=True)):
        rows += _line(store, model, benchmark, lines[model, benchmark])
    return pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))


def _lines(
    runs: Iterable[Mapping[str, Any]], records: Mapping[str, Mapping[str, Any]], campaign: str | None
) -> dict[tuple[str, str], list[_Point]]:
    lines: dict[tuple[str, str], dict[str, _Point]] = {}
    for run in runs:
        for model in run["models"]:
            for benchmark, cell in model["cells"].items():
                if cell in records:
                    point = _Point(run["campaign"], run["run"], records[cell])
                    lines.setdefault((model["model"], benchmark), {}).setdefault(cell, point)
    if campaign is None:
        named = {cell for points in lines.values() for cell in points}
        for cell, record in records.items():
            if cell not in named:
                lines.setdefault((record["model"], record["benchmark"]), {})[cell] = _Point(None, "", record)
    return {
        key: sorted(points.values(), key=lambda point: (point.record["committed"], point.run))
        for key, points in lines.items()
    }


def _line(store: Store, model: str, benchmark: str, points: Sequence[_Point]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    start: tuple[pd.DataFrame, Mapping[str, Any]] | None = None
    for point in points:
        head, fingerprint = point.record["headline"], point.record["fingerprint"]
        values, weights = _values(store, point.record)
        low, high = (math.nan, math.nan) if weights is None else _interval(values, weights)
        row = {
            "model": model,
            "benchmark": benchmark,
            "metric": head["metric"],
            "committed": point.record["committed"],
            "campaign": point.campaign,
            "run": point.run,
            "revision": point.record["settings"].get("revision"),
            "score": head["value"],
            "low": low,
            "high": high,
            "difference": math.nan,
            "p": math.nan,
            "change": "",
            "fingerprint": fingerprint,
        }
        comparable = weights is not None and start is not None and start[1]["metric"] == head["metric"]
        if comparable and start is not None and weights is not None:
            found = _compared(values, start[0], weights)
            row |= {"difference": found.difference, "p": found.p_value}
            if found.p_value <= (1.0 - LEVEL) / (len(points) - 1):
                row["change"] = BETTER if (found.difference > 0) == head["higher_is_better"] else WORSE
        if weights is not None and (not comparable or row["change"]):
            start = values, head
        rows.append(row)
    return rows


def _values(store: Store, record: Mapping[str, Any]) -> tuple[pd.DataFrame, Weights | None]:
    """Return a cell's values by doc with their clusters, and under which weights their mean is its score, if under any."""
    cluster = record["metadata"].get("cluster")
    columns = ["task", "doc_id", "value", *(["doc"] if cluster else [])]
    frame = store.samples_of_cells([record["fingerprint"]], columns).set_index(["task", "doc_id"]).sort_index()
    if cluster:
        frame["cluster"] = cluster_keys(record["benchmark"], frame.pop("doc").fillna("null"), cluster)
    score = record["headline"]["value"]
    kinds: tuple[Weights, ...] = ("docs", "tasks")
    for weights in kinds:
        mean = estimate(frame["value"], tasks=frame.index.get_level_values("task"), weights=weights).value
        if score is not None and math.isclose(mean, score, rel_tol=1e-9, abs_tol=1e-9):
            return frame, weights
    return frame, None


def _interval(values: pd.DataFrame, weights: Weights) -> tuple[float, float]:
    return interval(values["value"], tasks=_tasks(values), weights=weights, clusters=values.get("cluster"))


def _compared(values: pd.DataFrame, before: pd.DataFrame, weights: Weights) -> PairedComparison:
    both = values.join(before["value"].rename("before"), how="inner")
    return compare_paired(
        both["value"], both["before"], tasks=_tasks(both), weights=weights, clusters=both.get("cluster")
    )


def _tasks(values: pd.DataFrame) -> Any:
    return np.asarray(values.index.get_level_values("task"))
