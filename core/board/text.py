"""The leaderboard, two sides compared, and scores over time, for people: tables, markdown, and plain rows.

Leaderboards are the frames of `core.compare.compare`. The frame of `core.results.Store.leaderboard` will do: without ``low``,
``high`` and ``letters`` a score stands with its standard error.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from core.compare.between import BETTER, WORSE, SidesComparison
from core.compare.flips import GAINED
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
    p_text,
    plain_rows,
    ranked,
    score_text,
    texts,
)
from core.visible import one_line, visible

if TYPE_CHECKING:
    import pandas as pd

LETTERS_NOTE = (
    "Models of a benchmark that share a letter are not told apart (paired tests, 5%, Holm-corrected); "
    "bold: not told apart from the best."
)
LONGEST = 300  # characters of a text; the beginning of a prompt goes, the end of an answer
UNTESTED = "Not tested, for the score is not a mean of values per doc, or the metrics differ: "
HISTORY_HEADINGS = (
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
HISTORY_NOTE = (
    "Differences are to the revision before, or to the one named, on the docs both answered; a change is significant at 5%, "
    "Holm-corrected over the model's benchmarks, as steelyard compare says of the two."
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
    """Return the findings on engines of campaigns that used both, each by its newest run (`core.results.Store.campaigns`)."""
    newest = {run["campaign"]: run for run in runs}
    return list(dict.fromkeys(run["engines"]["text"] for run in newest.values() if run.get("engines")))


def _board_remarks(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines under a leaderboard: the meaning of letters, notes on scores, and the spread of answers to one doc."""
    letters = [LETTERS_NOTE] if any(row.get("letters") for row in rows) else []
    notes = [f"* {row['model']}, {row['benchmark']}: {row['notes']}" for row in rows if row.get("notes")]
    spreads = [f"{row['model']}, {row['benchmark']}: {_spread_text(row)}" for row in rows if row.get("repeats")]
    return letters + notes + spreads


def _spread_text(row: Mapping[str, Any]) -> str:
    within, between = (None if row[name] is None else math.sqrt(row[name]) for name in ("within", "between"))
    return (
        f"{row['repeats']:.3g} answers per doc, all of them {score_text(row['mean'], row['mean_stderr'])}; "
        f"standard deviation {score_text(within, None)} within docs, {score_text(between, None)} between docs"
    )


def _with_best(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield ranked rows, each with whether it is its benchmark's best, or shares a letter with that."""
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


def comparison_table(found: SidesComparison) -> Table:
    """Return one row per benchmark and pair of models, significant differences bold."""
    rows = plain_rows(found.rows)
    return Table(
        f"B = {found.b.name} less A = {found.a.name}, on the docs both answered",
        (*texts("benchmark", "model", "metric"), *numbers("A", "B"), *difference_columns("gained", "lost")),
        [Row(_comparison_cells(row), is_significant(row)) for row in rows],
        _comparison_remarks(rows),
    )


def comparison_markdown(found: SidesComparison) -> str:
    """Return the same as markdown, with the docs that flipped."""
    table = comparison_table(found).markdown()
    sides = markdown_text(f"A: {found.a.name}, B: {found.b.name}")
    parts = [sides, table.rstrip(), *map(markdown_text, (*found.only_a, *found.only_b))]
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
        parts.append(f"### {markdown_text(_title(row))}")
        texts = (("prompt", row["prompt"]), ("target", row["target"]))
        answers = tuple((f"{each.upper()}, {row[f'value_{each}']:g}", row[f"answer_{each}"]) for each in ("a", "b"))
        parts += [
            f"{heading}:\n\n{textwrap.indent(visible(text or ''), '    ', lambda _: True)}"
            for heading, text in texts + answers
        ]
    return "\n\n".join(parts) + "\n" if parts else "No doc flipped.\n"


def _title(row: Mapping[str, Any]) -> str:
    way = "B gained" if row["change"] == GAINED else "B lost"
    return one_line(
        f"{way}: {row['benchmark']}, {row['task']} doc {row['doc_id']} ({row['model_a']} → {row['model_b']})"
    )


def _short(text: str | None, *, end: bool = False) -> str:
    line = " ".join(visible(text or "").split())
    if len(line) <= LONGEST:
        return line
    return f"… {line[-LONGEST:]}" if end else f"{line[:LONGEST]} …"


def _comparison_cells(row: Mapping[str, Any]) -> list[str]:
    alike = row["model_a"] == row["model_b"]
    return [
        row["benchmark"],
        row["model_a"] if alike else f"{row['model_a']} → {row['model_b']}",
        row["metric"],
        score_text(row["score_a"], None),
        score_text(row["score_b"], None),
        *difference_cells(row, row["gained"], row["lost"]),
    ]


def _comparison_remarks(rows: list[dict[str, Any]]) -> list[str]:
    remarks = []
    if untested := [row["benchmark"] for row in rows if row["p"] is None]:
        remarks.append(UNTESTED + ", ".join(dict.fromkeys(untested)))
    for row in rows:
        if row["settings"]:
            remarks.append(f"{row['benchmark']}, {row['model_b']}: settings differ: {row['settings']}")
    return remarks


def history_table(frame: pd.DataFrame) -> Table:
    """Return the history as a table, changes bold."""
    rows = [
        Row(_history_cells(row), bool(row["change"]), (row["model"], row["benchmark"])) for row in plain_rows(frame)
    ]
    return Table("History", HISTORY_HEADINGS, rows, [HISTORY_NOTE])


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
