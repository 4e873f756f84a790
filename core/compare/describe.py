"""Two sides compared, for people: terminal tables, markdown, and the docs that flipped with their texts."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.board.text import (
    add_row,
    difference_cells,
    is_significant,
    markdown_head,
    markdown_line,
    plain_rows,
    score_text,
    table_of,
)
from core.compare.flips import GAINED

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from core.compare.between import SidesComparison

HEADINGS = (
    "benchmark",
    "model",
    "metric",
    "A",
    "B",
    "difference",
    "95% interval",
    "p",
    "p (Holm)",
    "docs",
    "gained",
    "lost",
    "test",
)
LONGEST = 300  # characters of a text; the beginning of a prompt goes, the end of an answer
UNTESTED = "Not tested, for the score is not a mean of values per doc, or the metrics differ: "


def comparison_table(found: SidesComparison) -> Table:
    """Return one row per benchmark and pair of models, significant differences bold."""
    from rich.text import Text

    table = table_of(f"B = {found.b.name} less A = {found.a.name}, on the docs both answered", HEADINGS)
    rows = plain_rows(found.rows)
    for row in rows:
        add_row(table, _cells(row), "bold" if is_significant(row) else "")
    table.caption, table.caption_justify = Text("\n".join(_remarks(rows))), "left"
    return table


def comparison_markdown(found: SidesComparison) -> str:
    """Return the same as markdown."""
    rows = plain_rows(found.rows)
    lines = [f"A: {found.a.name}, B: {found.b.name}", "", *markdown_head(HEADINGS)]
    lines += [markdown_line(_cells(row), bold=(5,) if is_significant(row) else ()) for row in rows]
    remarks = [*_remarks(rows), *found.only_a, *found.only_b]
    lines += [line for remark in remarks for line in ("", remark)]
    if len(found.flips):
        lines += ["", flips_markdown(found.flips).rstrip()]
    return "\n".join(lines) + "\n"


def flips_text(flips: pd.DataFrame) -> str:
    """Return the docs that flipped with their texts, as plain text."""
    parts = []
    for row in plain_rows(flips):
        lines = [_title(row), f"  prompt    {_short(row['prompt'], end=True)}", f"  target    {_short(row['target'])}"]
        for label in ("a", "b"):
            mark = f"{label.upper()} ({row[f'value_{label}']:g})"
            lines.append(f"  {mark:<9} {_short(row[f'answer_{label}'])}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def flips_markdown(flips: pd.DataFrame) -> str:
    """Return the docs that flipped with their whole texts, in code blocks that no text can end."""
    parts = []
    for row in plain_rows(flips):
        parts.append(f"### {_title(row)}")
        texts = (("prompt", row["prompt"]), ("target", row["target"]))
        answers = tuple((f"{each.upper()}, {row[f'value_{each}']:g}", row[f"answer_{each}"]) for each in ("a", "b"))
        parts += [
            f"{heading}:\n\n{textwrap.indent(text or '', '    ', lambda _: True)}" for heading, text in texts + answers
        ]
    return "\n\n".join(parts) + "\n" if parts else "No doc flipped.\n"


def _title(row: Mapping[str, Any]) -> str:
    way = "B gained" if row["change"] == GAINED else "B lost"
    return f"{way}: {row['benchmark']}, {row['task']} doc {row['doc_id']} ({row['model_a']} → {row['model_b']})"


def _short(text: str | None, *, end: bool = False) -> str:
    line = " ".join((text or "").split())
    if len(line) <= LONGEST:
        return line
    return f"… {line[-LONGEST:]}" if end else f"{line[:LONGEST]} …"


def _cells(row: Mapping[str, Any]) -> list[str]:
    alike = row["model_a"] == row["model_b"]
    return [
        row["benchmark"],
        row["model_a"] if alike else f"{row['model_a']} → {row['model_b']}",
        row["metric"],
        score_text(row["score_a"], None),
        score_text(row["score_b"], None),
        *difference_cells(row, row["gained"], row["lost"]),
    ]


def _remarks(rows: list[dict[str, Any]]) -> list[str]:
    remarks = []
    if untested := [row["benchmark"] for row in rows if row["p"] is None]:
        remarks.append(UNTESTED + ", ".join(dict.fromkeys(untested)))
    for row in rows:
        if row["settings"]:
            remarks.append(f"{row['benchmark']}, {row['model_b']}: settings differ: {row['settings']}")
    return remarks
