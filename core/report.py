"""The leaderboard for people: a terminal table, markdown, and plain rows. All read the frame of `Store.leaderboard`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

HEADINGS = ("benchmark", "model", "metric", "score", "docs", "engine", "TP", "tokens/s")
NUMBERS = frozenset({"score", "docs", "TP", "tokens/s"})


def ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort a leaderboard by benchmark, the best score first; scores that are missing come last."""
    best_first = (
        frame["score"].astype(float).where(frame["higher_is_better"].astype(bool), -frame["score"].astype(float))
    )
    keyed = frame.assign(_rank=-best_first).sort_values(["benchmark", "_rank", "model"], na_position="last")
    return keyed.drop(columns="_rank").reset_index(drop=True)


def leaderboard_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the leaderboard as plain JSON values, ranked, one dict per row; None for what is not known."""
    rows = ranked(frame).astype(object)
    return [
        {str(name): value for name, value in row.items()} for row in rows.where(rows.notna(), None).to_dict("records")
    ]


def leaderboard_table(frame: pd.DataFrame) -> Table:
    """Return the leaderboard as a table for the terminal; a benchmark's best score is bold."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Leaderboard", title_justify="left")
    for heading in HEADINGS:
        table.add_column(
            heading, justify="right" if heading in NUMBERS else "left", overflow="fold", no_wrap=heading in NUMBERS
        )
    above = None
    for row in leaderboard_rows(frame):
        first = row["benchmark"] != above
        if first and above is not None:
            table.add_section()
        above = row["benchmark"]
        # Text, not strings: a name in square brackets would be read as markup.
        table.add_row(*(Text(cell, style="bold" if first and row["score"] is not None else "") for cell in _cells(row)))
    return table


def runs_table(frame: pd.DataFrame) -> Table:
    """Return where each model ran and why, one row per model and placement."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Where each model ran and why", title_justify="left")
    for heading in ("model", "engine", "TP", "PP", "replicas", "reason"):
        table.add_column(heading, justify="right" if heading in ("TP", "PP", "replicas") else "left")
    names = ["model", "engine", "tensor_parallel", "pipeline_parallel", "replicas", "reason"]
    for row in leaderboard_rows(frame.drop_duplicates(names).sort_values("model")):
        table.add_row(*(Text("" if row[name] is None else str(row[name])) for name in names))
    return table


def leaderboard_markdown(frame: pd.DataFrame) -> str:
    """Return the leaderboard as a markdown table, and under it where each model ran and why."""
    lines = [_markdown_line(HEADINGS), _markdown_line("---:" if heading in NUMBERS else "---" for heading in HEADINGS)]
    lines += [_markdown_line(_cells(row)) for row in leaderboard_rows(frame)]
    reasons = dict.fromkeys(
        (row["model"], row["reason"]) for row in sorted(leaderboard_rows(frame), key=lambda row: row["model"])
    )
    lines += ["", *(f"- {_escaped(model)}: {_escaped(reason)}" for model, reason in reasons if reason)]
    return "\n".join(lines).rstrip() + "\n"


def score_text(score: float | None, stderr: float | None) -> str:
    """Write a score with its standard error, to four decimals."""
    if score is None:
        return "-"
    return f"{score:.4f}" if stderr is None else f"{score:.4f} ± {stderr:.4f}"


def _cells(row: dict[str, Any]) -> list[str]:
    degree, speed = row["tensor_parallel"], row["tokens_per_second"]
    return [
        row["benchmark"],
        row["model"],
        row["metric"],
        score_text(row["score"], row["stderr"]),
        f"{row['docs']:,}",
        row["engine"] or "",
        "" if degree is None else str(degree),
        "" if speed is None else f"{speed:,.0f}",
    ]


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
