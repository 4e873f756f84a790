"""The leaderboard for people: as tables, markdown, and plain rows, from the frames of `core.compare.compare`.

The frame of `core.results.Store.leaderboard` will do: without ``low``, ``high`` and ``letters`` a score stands with its standard
error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from core.compare.paired import share_letter
from core.tables import (
    Column,
    Row,
    Table,
    difference_cells,
    difference_columns,
    interval_text,
    is_significant,
    markdown_text,
    numbers,
    plain_rows,
    ranked,
    score_text,
    texts,
)

if TYPE_CHECKING:
    import pandas as pd

LETTERS_NOTE = (
    "Models of a benchmark that share a letter are not told apart (paired tests, 5%, Holm-corrected); "
    "bold: not told apart from the best."
)
PLACED = ("model", "engine", "tensor_parallel", "pipeline_parallel", "replicas", "reason")


def leaderboard_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the leaderboard as plain JSON values, ranked, one dict per row; None for what is not known."""
    return plain_rows(ranked(frame))


def leaderboard_table(frame: pd.DataFrame, title: str = "Leaderboard") -> Table:
    """Return `leaderboard_rows` as a table, with intervals and letters where any row has an interval.

    A benchmark's best models, as far as one can tell, are bold.
    """
    rows = leaderboard_rows(frame)
    compared = any(row.get("low") is not None for row in rows)
    columns = (
        *texts("benchmark"),
        *texts("model", marked=True),
        *texts("metric"),
        *numbers("score", marked=True),
        *((Column("95% interval", wrap=False), Column("letters", wrap=False)) if compared else ()),
        *numbers("docs"),
        *texts("engine", spare=True),
        *numbers("TP", "tokens/s", spare=True),
    )
    cells = [Row(_board_cells(row, compared), best, row["benchmark"]) for row, best in _with_best(rows)]
    return Table(title, columns, cells, _board_remarks(rows))


def runs_table(frame: pd.DataFrame) -> Table:
    """Return where each model ran and why, one row per model and placement."""
    rows = leaderboard_rows(frame.drop_duplicates(list(PLACED)).sort_values("model"))
    return Table(
        "Where each model ran and why",
        (*texts("model", "engine"), *numbers("TP", "PP", "replicas"), *texts("reason")),
        [Row(["" if row[name] is None else str(row[name]) for name in PLACED]) for row in rows],
    )


def leaderboard_markdown(frame: pd.DataFrame) -> str:
    """Return the leaderboard as a markdown table, and under it where each model ran and why."""
    rows = sorted(leaderboard_rows(frame), key=lambda row: row["model"])
    reasons = dict.fromkeys((row["model"], row["reason"]) for row in rows if row["reason"])
    lines = [f"- {markdown_text(model)}: {markdown_text(reason)}" for model, reason in reasons]
    return "\n".join([leaderboard_table(frame).markdown(), *lines]).rstrip() + "\n"


def pairs_table(pairs: pd.DataFrame) -> Table:
    """Return every pair of models compared (`core.compare.compare.PAIR_COLUMNS`), significant differences bold."""
    return Table(
        "Differences between models, on the docs both answered",
        (*texts("benchmark", "model", "against"), *difference_columns("won", "lost")),
        [
            Row(
                [row["benchmark"], row["model_a"], row["model_b"], *difference_cells(row, row["wins"], row["losses"])],
                is_significant(row),
                row["benchmark"],
            )
            for row in plain_rows(pairs)
        ],
    )


def engine_findings(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what campaigns that used both engines found of them, each by its newest run (`core.results.Store.campaigns`)."""
    newest = {run["campaign"]: run for run in runs}
    return list(dict.fromkeys(run["engines"]["text"] for run in newest.values() if run.get("engines")))


def _board_remarks(rows: list[dict[str, Any]]) -> list[str]:
    """Return what stands under a leaderboard: what letters mean, what is held against scores, how answers to one doc differ."""
    letters = [LETTERS_NOTE] if any(row.get("letters") for row in rows) else []
    notes = [f"* {row['model']}, {row['benchmark']}: {row['notes']}" for row in rows if row.get("notes")]
    spreads = [f"{row['model']}, {row['benchmark']}: {_spread_text(row)}" for row in rows if row.get("repeats")]
    return letters + notes + spreads


def _spread_text(row: Mapping[str, Any]) -> str:
    """Say how answers to one doc differ, and docs beyond that: standard deviations."""
    within, between = (None if row[name] is None else math.sqrt(row[name]) for name in ("within", "between"))
    return (
        f"{row['repeats']:.3g} answers per doc, all of them {score_text(row['mean'], row['mean_stderr'])}; "
        f"standard deviation {score_text(within, None)} within docs, {score_text(between, None)} between docs"
    )


def _with_best(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Give ranked rows with whether each is its benchmark's best, or shares a letter with that."""
    best: dict[str, Any] = {}
    for row in rows:
        if best.get("benchmark") != row["benchmark"]:
            best = row
        alike = share_letter(row.get("letters") or "", best.get("letters") or "")
        yield row, row["score"] is not None and (row is best or alike)


def _board_cells(row: dict[str, Any], compared: bool) -> list[str]:
    degree, speed, low = row["tensor_parallel"], row["tokens_per_second"], row.get("low")
    between = [interval_text(low, row.get("high")), row.get("letters") or ""] if compared else []
    return [
        row["benchmark"],
        row["model"],
        row["metric"],
        score_text(row["score"], row["stderr"] if low is None else None) + ("*" if row.get("notes") else ""),
        *between,
        f"{row['docs']:,}",
        row["engine"] or "",
        "" if degree is None else str(degree),
        "" if speed is None else f"{speed:,.0f}",
    ]
