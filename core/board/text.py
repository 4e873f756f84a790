"""The leaderboard for people: terminal tables, markdown, and plain rows, from the frames of `core.compare.compare`.

The frame of `core.results.Store.leaderboard` will do: without ``low``, ``high`` and ``letters`` a score stands with its standard
error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from core.compare.paired import share_letter

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

NUMBERS = frozenset(
    {
        "score",
        "docs",
        "TP",
        "PP",
        "replicas",
        "tokens/s",
        "difference",
        "p",
        "p (Holm)",
        "won",
        "lost",
        "gained",
        "A",
        "B",
    }
)
COMPARED = ("95% interval", "letters")
ALPHA = 0.05
LETTERS_NOTE = (
    "Models of a benchmark that share a letter are not told apart (paired tests, 5%, Holm-corrected); "
    "bold: not told apart from the best."
)


def ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort a leaderboard by benchmark, the best score first; scores that are missing come last."""
    best_first = (
        frame["score"].astype(float).where(frame["higher_is_better"].astype(bool), -frame["score"].astype(float))
    )
    keyed = frame.assign(_rank=-best_first).sort_values(["benchmark", "_rank", "model"], na_position="last")
    return keyed.drop(columns="_rank").reset_index(drop=True)


def leaderboard_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the leaderboard as plain JSON values, ranked, one dict per row; None for what is not known."""
    return plain_rows(ranked(frame))


def leaderboard_table(frame: pd.DataFrame, title: str = "Leaderboard") -> Table:
    """Return the leaderboard as a table for the terminal; a benchmark's best models, as far as one can tell, are bold."""
    from rich.text import Text

    rows = leaderboard_rows(frame)
    compared = is_compared(rows)
    table = table_of(title, board_headings(compared))
    table.caption, table.caption_justify = Text("\n".join(board_remarks(rows))), "left"
    above = None
    for row, best in with_best(rows):
        if above is not None and row["benchmark"] != above:
            table.add_section()
        above = row["benchmark"]
        add_row(table, board_cells(row, compared), "bold" if best else "")
    return table


def runs_table(frame: pd.DataFrame) -> Table:
    """Return where each model ran and why, one row per model and placement."""
    table = table_of("Where each model ran and why", ("model", "engine", "TP", "PP", "replicas", "reason"), fold=False)
    names = ["model", "engine", "tensor_parallel", "pipeline_parallel", "replicas", "reason"]
    for row in leaderboard_rows(frame.drop_duplicates(names).sort_values("model")):
        add_row(table, ("" if row[name] is None else str(row[name]) for name in names))
    return table


def leaderboard_markdown(frame: pd.DataFrame) -> str:
    """Return the leaderboard as a markdown table, and under it where each model ran and why."""
    rows = leaderboard_rows(frame)
    compared = is_compared(rows)
    lines = markdown_head(board_headings(compared))
    lines += [markdown_line(board_cells(row, compared), bold=(1, 3) if best else ()) for row, best in with_best(rows)]
    lines += [line for remark in board_remarks(rows) for line in ("", _escaped(remark))]
    reasons = dict.fromkeys((row["model"], row["reason"]) for row in sorted(rows, key=lambda row: row["model"]))
    lines += ["", *(f"- {_escaped(model)}: {_escaped(reason)}" for model, reason in reasons if reason)]
    return "\n".join(lines).rstrip() + "\n"


PAIR_HEADINGS = (
    "benchmark",
    "model",
    "against",
    "difference",
    "95% interval",
    "p",
    "p (Holm)",
    "docs",
    "won",
    "lost",
    "test",
)


def pairs_table(pairs: pd.DataFrame) -> Table:
    """Return every pair of models compared (`core.compare.compare.PAIR_COLUMNS`), significant differences bold."""
    table = table_of("Differences between models, on the docs both answered", PAIR_HEADINGS)
    above = None
    for row in plain_rows(pairs):
        if above is not None and row["benchmark"] != above:
            table.add_section()
        above = row["benchmark"]
        add_row(table, pair_cells(row), "bold" if is_significant(row) else "")
    return table


def pairs_markdown(pairs: pd.DataFrame) -> str:
    """Return the pairs as a markdown table, significant differences bold."""
    lines = markdown_head(PAIR_HEADINGS)
    lines += [markdown_line(pair_cells(row), bold=(3,) if is_significant(row) else ()) for row in plain_rows(pairs)]
    return "\n".join(lines) + "\n"


def engine_findings(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what campaigns that used both engines found of them, each by its newest run (`core.results.Store.campaigns`)."""
    newest = {run["campaign"]: run for run in runs}
    return list(dict.fromkeys(run["engines"]["text"] for run in newest.values() if run.get("engines")))


def score_text(score: float | None, stderr: float | None) -> str:
    """Write a score with its standard error, to four decimals."""
    if score is None:
        return "-"
    return f"{score:.4f}" if stderr is None else f"{score:.4f} ± {stderr:.4f}"


def interval_text(low: float | None, high: float | None) -> str:
    """Write an interval, to four decimals; empty where there is none."""
    return "" if low is None or high is None else f"[{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    if math.isinf(value):
        return "-∞" if value < 0 else "∞"
    return f"{value:.4f}".replace("-0.0000", "0.0000")


def p_text(p: float | None) -> str:
    """Write a p-value, to four decimals; empty where there is none."""
    return "" if p is None else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one dict per row, None for what is not known."""
    values = frame.astype(object)
    return [
        {str(name): value for name, value in row.items()}
        for row in values.where(values.notna(), None).to_dict("records")
    ]


def is_compared(rows: Iterable[dict[str, Any]]) -> bool:
    """Say whether any row has an interval."""
    return any(row.get("low") is not None for row in rows)


def board_remarks(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return what stands under a leaderboard: what letters mean, what is held against scores, how answers to one doc differ."""
    listed = list(rows)
    letters = [LETTERS_NOTE] if any(row.get("letters") for row in listed) else []
    notes = [f"* {row['model']}, {row['benchmark']}: {row['notes']}" for row in listed if row.get("notes")]
    spreads = [f"{row['model']}, {row['benchmark']}: {_spread_text(row)}" for row in listed if row.get("repeats")]
    return letters + notes + spreads


def _spread_text(row: Mapping[str, Any]) -> str:
    """Say how answers to one doc differ, and docs beyond that: standard deviations."""
    within, between = (None if row[name] is None else math.sqrt(row[name]) for name in ("within", "between"))
    return (
        f"{row['repeats']:.3g} answers per doc, all of them {score_text(row['mean'], row['mean_stderr'])}; "
        f"standard deviation {score_text(within, None)} within docs, {score_text(between, None)} between docs"
    )


def board_headings(compared: bool) -> tuple[str, ...]:
    """Return the headings of a leaderboard, with intervals and letters where it is ``compared``."""
    between = COMPARED if compared else ()
    return ("benchmark", "model", "metric", "score", *between, "docs", "engine", "TP", "tokens/s")


def with_best(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Give ranked rows with whether each is its benchmark's best, or shares a letter with that."""
    best: dict[str, Any] = {}
    for row in rows:
        if best.get("benchmark") != row["benchmark"]:
            best = row
        alike = share_letter(row.get("letters") or "", best.get("letters") or "")
        yield row, row["score"] is not None and (row is best or alike)


def board_cells(row: dict[str, Any], compared: bool) -> list[str]:
    """Return the texts of a leaderboard row under `board_headings`."""
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


def pair_cells(row: dict[str, Any]) -> list[str]:
    """Return the texts of a pair under `PAIR_HEADINGS`."""
    return [row["benchmark"], row["model_a"], row["model_b"], *difference_cells(row, row["wins"], row["losses"])]


def difference_cells(row: Mapping[str, Any], better: int, worse: int) -> list[str]:
    """Return the texts of a paired difference: itself, interval, p-values, docs, how many are ``better`` and ``worse``, method."""
    difference = row["difference"]
    return [
        "-" if difference is None else f"{difference:+.4f}",
        interval_text(row["low"], row["high"]),
        p_text(row["p"]),
        p_text(row["p_holm"]),
        f"{row['docs']:,}" + (f" (-{row['left_out']:,})" if row["left_out"] else ""),
        f"{better:,}",
        f"{worse:,}",
        row["method"],
    ]


def is_significant(row: Mapping[str, Any]) -> bool:
    """Say whether a difference is significant at 5% after Holm's correction."""
    return row["p_holm"] is not None and row["p_holm"] <= ALPHA


def table_of(title: str, headings: Iterable[str], *, fold: bool = True) -> Table:
    """Return an empty table for the terminal."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in headings:
        number = heading in NUMBERS or heading in COMPARED
        table.add_column(
            heading,
            justify="right" if heading in NUMBERS else "left",
            overflow="fold" if fold else "ellipsis",
            no_wrap=fold and number,
        )
    return table


def add_row(table: Table, cells: Iterable[str], style: str = "") -> None:
    """Add a row of plain texts."""
    from rich.text import Text

    # Text, not strings: a name in square brackets would be read as markup.
    table.add_row(*(Text(cell, style=style) for cell in cells))


def markdown_head(headings: Iterable[str]) -> list[str]:
    """Return the first two lines of a markdown table."""
    names = list(headings)
    return [markdown_line(names), markdown_line("---:" if name in NUMBERS else "---" for name in names)]


def markdown_line(cells: Iterable[str], bold: Iterable[int] = ()) -> str:
    """Return one line of a markdown table, the cells at ``bold`` bold."""
    marked = set(bold)
    texts = [f"**{_escaped(cell)}**" if place in marked else _escaped(cell) for place, cell in enumerate(cells)]
    return f"| {' | '.join(texts)} |"


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("*", "\\*").split())
