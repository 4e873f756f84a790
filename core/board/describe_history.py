"""Histories for people: one line per revision, changes marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.compare.between import BETTER, WORSE
from core.tables import Column, Row, Table, interval_text, numbers, p_text, plain_rows, score_text, texts

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *texts("model", "benchmark"),
    *texts("metric", spare=True),
    *texts("when"),
    *texts("revision", spare=True),
    *numbers("score", marked=True),
    Column("95% interval", wrap=False),
    *numbers("difference"),
    *numbers("p (Holm)", spare=True),
    *texts("change", marked=True),
)
MARKS = {BETTER: "▲ better", WORSE: "▼ worse", "": ""}
NOTE = (
    "Differences are to the revision before, or to the one named, on the docs both answered; a change is significant at 5%, "
    "Holm-corrected over the model's benchmarks, as steelyard compare says of the two."
)


def history_table(frame: pd.DataFrame) -> Table:
    """Return the history as a table, changes bold."""
    rows = [Row(_cells(row), bool(row["change"]), (row["model"], row["benchmark"])) for row in plain_rows(frame)]
    return Table("History", COLUMNS, rows, [NOTE])


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["model"],
        row["benchmark"],
        row["metric"],
        row["committed"][:16].replace("T", " "),
        _short(row["revision"] or ""),
        score_text(row["score"], None),
        interval_text(row["low"], row["high"]),
        "" if row["difference"] is None else f"{row['difference']:+.4f}",
        p_text(row["p_holm"]),
        MARKS[row["change"]] + (f" since {_short(row['since'])}" if row["since"] else ""),
    ]


def _short(revision: str) -> str:
    return revision.removeprefix("sha256:")[:12]
