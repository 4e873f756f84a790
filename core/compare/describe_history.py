"""Histories for people: one line per revision, changes marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.board.text import (
    add_row,
    interval_text,
    markdown_head,
    markdown_line,
    p_text,
    plain_rows,
    score_text,
    table_of,
)
from core.compare.between import BETTER, WORSE

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

HEADINGS = (
    "model",
    "benchmark",
    "metric",
    "when",
    "revision",
    "score",
    "95% interval",
    "difference",
    "p (Holm)",
    "change",
)
MARKS = {BETTER: "▲ better", WORSE: "▼ worse", "": ""}
NOTE = (
    "Differences are to the revision before, or to the one named, on the docs both answered; a change is significant at 5%, "
    "Holm-corrected over the model's benchmarks, as steelyard compare says of the two."
)


def history_table(frame: pd.DataFrame) -> Table:
    """Return the history as a table for the terminal, changes bold."""
    from rich.text import Text

    table, above = table_of("History", HEADINGS), None
    for row in plain_rows(frame):
        line = row["model"], row["benchmark"]
        if above is not None and line != above:
            table.add_section()
        above = line
        add_row(table, _cells(row), "bold" if row["change"] else "")
    table.caption, table.caption_justify = Text(NOTE), "left"
    return table


def history_markdown(frame: pd.DataFrame) -> str:
    """Return the history as a markdown table, changes bold."""
    lines = markdown_head(HEADINGS)
    lines += [markdown_line(_cells(row), bold=(5, 9) if row["change"] else ()) for row in plain_rows(frame)]
    return "\n".join([*lines, "", NOTE]) + "\n"


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
