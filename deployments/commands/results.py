"""``steelyard results`` and ``steelyard report``: a store or a part of it, in the formats people need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import UserError
from deployments.console import (
    NOTHING,
    BenchmarkOption,
    CampaignOption,
    ModelOption,
    StoreArgument,
    SuiteOption,
    check_format,
    console,
    opened,
    print_board,
    print_lines,
    print_rows,
    print_timeline,
    say,
)

if TYPE_CHECKING:
    import pandas as pd

    from core.board.read import Board
    from core.board.select import Selection
    from core.results import Store

FORMATS = ("table", "markdown", "csv", "json", "parquet", "latex")


def results(
    store: StoreArgument,
    campaign: CampaignOption = None,
    benchmark: BenchmarkOption = None,
    model: ModelOption = None,
    suite: SuiteOption = None,
    by_size: Annotated[bool, typer.Option("--by-size", help="One leaderboard for each size tier of models.")] = False,
    format: Annotated[str, typer.Option(help="table, markdown, csv, json, parquet or latex.")] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write; needed for parquet.")
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Every two models compared, instead of the leaderboard.")
    ] = False,
    history: Annotated[
        bool, typer.Option("--history", help="Every model's scores over its revisions, changes marked, instead.")
    ] = False,
    timeline: Annotated[
        bool,
        typer.Option("--timeline", help="What ran when in each campaign's newest run, instead of the leaderboard."),
    ] = False,
) -> None:
    """Show the leaderboard of a results store, with intervals and which differences are real."""
    from core.board.read import read_board
    from core.board.select import Selection

    check_format(format, FORMATS)
    if format == "parquet" and output is None:
        raise UserError("format 'parquet' is not for terminals: name a file with --output")
    source, campaign = opened(store, campaign)
    if timeline:
        print_timeline(source, campaign, format)
        return
    selection = Selection(tuple(benchmark or ()), tuple(model or ()), suite)
    if history:
        _print_history(source, campaign, selection, format, output)
        return
    chosen = read_board(source, campaign, selection)
    if output is not None:
        rows = chosen.compared.pairs if pairs else chosen.compared.board
        _write(output, rows, format, lambda: _text(chosen, format, pairs=pairs, by_size=by_size))
    elif format == "table":
        (_print_pairs if pairs else _print_board)(chosen, by_size=by_size)
    elif format in ("csv", "json"):
        print_rows(chosen.compared.pairs if pairs else chosen.compared.board, format)
    else:
        say(_text(chosen, format, pairs=pairs, by_size=by_size))


def report(
    store: StoreArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write.")] = Path(
        "report.html"
    ),
    campaign: CampaignOption = None,
    benchmark: BenchmarkOption = None,
    model: ModelOption = None,
    suite: SuiteOption = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Most samples to put in; of more, one doc in so many of each task.")
    ] = 100_000,
) -> None:
    """Write a report that needs no network: leaderboard, charts, timeline, and a browser for every sample."""
    from core.board.select import Selection
    from core.report.html import read_report, report_html

    source, campaign = opened(store, campaign)
    found = read_report(source, campaign, Selection(tuple(benchmark or ()), tuple(model or ()), suite), samples)
    if found.board.compared.board.empty:
        raise UserError(NOTHING.format(source.uri))
    text = report_html(found)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {str(output)!r}: it cannot be written: {error.strerror or error}") from error
    console().print(f"{output}: {len(text.encode()) / 1e6:.1f} MB", soft_wrap=True)


def _print_history(store: Store, campaign: str | None, selection: Selection, format: str, output: Path | None) -> None:
    from core.board.history import history
    from core.board.text import history_table

    if format == "latex" or (format == "table" and output is not None):
        raise UserError(f"format {format!r}: use csv, json, markdown or parquet here")
    frame = history(store, campaign, selection)
    if output is not None:
        _write(output, frame, format, history_table(frame).markdown)
    elif format in ("csv", "json"):
        print_rows(frame, format)
    elif format == "markdown":
        say(history_table(frame).markdown())
    else:
        console().print(history_table(frame) if len(frame) else NOTHING.format(store.uri), soft_wrap=frame.empty)


def _print_board(chosen: Board, *, by_size: bool) -> None:
    frame, out = chosen.compared.board, console()
    print_lines(out, chosen.lines)
    print_board(chosen.store, frame, chosen.runs, [] if frame.empty else _parts(frame, by_size=by_size))


def _print_pairs(chosen: Board, *, by_size: bool) -> None:
    from core.board.text import pairs_table
    from core.compare.compare import not_compared

    out = console()
    if chosen.compared.board.empty:
        out.print(NOTHING.format(chosen.store.uri), soft_wrap=True)
        return
    out.print(pairs_table(chosen.compared.pairs))
    if left := not_compared(chosen.compared):
        out.print(f"Not compared, for a score is not a mean of values per doc: {', '.join(left)}", soft_wrap=True)


def _parts(frame: pd.DataFrame, *, by_size: bool) -> list[tuple[str, pd.DataFrame]]:
    """Return titles and parts: one, or one for each size tier."""
    from core.board.select import tiers

    mark = " (partial)" if frame["partial"].any() else ""
    if not by_size:
        return [(f"Leaderboard{mark}", frame)]
    return [(f"Leaderboard{mark}: models of {tier}", frame[frame["tier"] == tier]) for tier in tiers(frame)]


def _text(chosen: Board, format: str, *, pairs: bool, by_size: bool) -> str:
    from core.board.text import leaderboard_markdown, leaderboard_table, pairs_table
    from core.tables import markdown_text

    if pairs:
        table = pairs_table(chosen.compared.pairs)
        return table.latex() if format == "latex" else table.markdown()
    parts = _parts(chosen.compared.board, by_size=by_size)
    if format == "latex":
        return "\n".join(leaderboard_table(part, title).latex() for title, part in parts)
    texts = [
        leaderboard_markdown(part) if len(parts) == 1 else f"## {title}\n\n{leaderboard_markdown(part)}"
        for title, part in parts
    ]
    return "\n".join([*(f"**{markdown_text(line)}**\n" for line in chosen.lines), *texts])


def _write(path: Path, frame: pd.DataFrame, format: str, text: Callable[[], str]) -> None:
    """Write rows, or for other formats ``text``, into a file. Raises `core.errors.UserError` where it cannot be written."""
    if format == "table":
        raise UserError("format 'table' is for terminals: name another with --format")
    try:
        if format == "parquet":
            frame.to_parquet(path, index=False)
        elif format in ("csv", "json"):
            with path.open("w", encoding="utf-8") as file:
                print_rows(frame, format, file)
        else:
            path.write_text(text(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {str(path)!r}: it cannot be written: {error.strerror or error}") from error
    say(path, err=True)
