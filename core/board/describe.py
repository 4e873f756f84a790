"""Two sides compared, for people: tables, markdown, and the docs that flipped with their texts."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.compare.between import BETTER, WORSE
from core.compare.flips import GAINED
from core.tables import (
    Column,
    Row,
    Table,
    difference_cells,
    difference_columns,
    interval_text,
    is_significant,
    numbers,
    p_text,
    plain_rows,
    score_text,
    texts,
)

if TYPE_CHECKING:
    import pandas as pd

    from core.compare.between import SidesComparison

LONGEST = 300  # characters of a text; the beginning of a prompt goes, the end of an answer
UNTESTED = "Not tested, for the score is not a mean of values per doc, or the metrics differ: "


def comparison_table(found: SidesComparison) -> Table:
    """Return one row per benchmark and pair of models, significant differences bold."""
    rows = plain_rows(found.rows)
    return Table(
        f"B = {found.b.name} less A = {found.a.name}, on the docs both answered",
        (*texts("benchmark", "model", "metric"), *numbers("A", "B"), *difference_columns("gained", "lost")),
        [Row(_cells(row), is_significant(row)) for row in rows],
        _remarks(rows),
    )


def comparison_markdown(found: SidesComparison) -> str:
    """Return the same as markdown, with the docs that flipped."""
    table = comparison_table(found).markdown()
    parts = [f"A: {found.a.name}, B: {found.b.name}", table.rstrip(), *found.only_a, *found.only_b]
    if len(found.flips):
        parts.append(flips_markdown(found.flips).rstrip())
    return "\n\n".join(parts) + "\n"


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
    rows = [
        Row(_history_cells(row), bool(row["change"]), (row["model"], row["benchmark"])) for row in plain_rows(frame)
    ]
    return Table("History", COLUMNS, rows, [NOTE])


def _history_cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["model"],
        row["benchmark"],
        row["metric"],
        row["committed"][:16].replace("T", " "),
        _revision_text(row["revision"] or ""),
        score_text(row["score"], None),
        interval_text(row["low"], row["high"]),
        "" if row["difference"] is None else f"{row['difference']:+.4f}",
        p_text(row["p_holm"]),
        MARKS[row["change"]] + (f" since {_revision_text(row['since'])}" if row["since"] else ""),
    ]


def _revision_text(revision: str) -> str:
    return revision.removeprefix("sha256:")[:12]
