"""``steelyard compare``: what one model, revision or campaign gained on another and lost, with gates for CI."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.console import StoreOption, check_format, complain, console, opened, print_lines, print_rows, say

if TYPE_CHECKING:
    from core.compare.between import SidesComparison

SHOWN = 2  # docs of each kind and benchmark in a table


def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="What to compare with: MODEL, MODEL@REVISION, campaign:NAME or campaign:NAME@RUN."
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="What to judge, named alike.")],
    store: StoreOption = "results",
    campaign: Annotated[str | None, typer.Option(help="Only cells of this campaign.")] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="Only this benchmark; may be given several times.")
    ] = None,
    flips: Annotated[
        int, typer.Option(min=0, help="Docs to show of each benchmark that B gained, and as many that it lost.")
    ] = SHOWN,
    flipped: Annotated[
        bool, typer.Option("--flipped", help="Every doc that flipped, with its texts, instead of the differences.")
    ] = False,
    format: Annotated[str, typer.Option(help="table, markdown, csv or json.")] = "table",
    fail_below: Annotated[
        list[str] | None,
        typer.Option(metavar="[BENCHMARK=]SCORE", help="End with exit code 1 where B's score is worse; several times."),
    ] = None,
    max_regression: Annotated[
        float | None,
        typer.Option(min=0, metavar="SCORE", help="End with exit code 1 where B is worse than A by more than this."),
    ] = None,
    significant: Annotated[
        bool, typer.Option("--significant", help="A regression counts only where the difference is significant (5%).")
    ] = False,
) -> None:
    """Compare two models, revisions or campaigns doc by doc: B less A, with intervals, corrected p-values and flipped docs."""
    from core.compare.between import check_bounds, compare_sides, regressions

    check_format(format)
    shown = 0 if format in ("csv", "json") else flips
    found = compare_sides(
        opened(store)[0], a, b, campaign=campaign, benchmarks=benchmark or (), flips=None if flipped else shown
    )
    rows = [{str(name): value for name, value in row.items()} for row in found.rows.to_dict("records")]
    bounds = check_bounds(fail_below or (), (row["benchmark"] for row in rows))
    broken = regressions(rows, fail_below=bounds, max_regression=max_regression, significant=significant)
    if bounds or max_regression is not None:
        broken += found.only_a
    _show(found, format, flipped=flipped)
    for sentence in broken:
        complain(sentence)
    if broken:
        sys.exit(1)


def _show(found: SidesComparison, format: str, *, flipped: bool) -> None:
    from core.board.text import comparison_markdown, comparison_table, flips_markdown, flips_text

    if format in ("csv", "json"):
        print_rows(found.flips if flipped else found.rows, format)
    elif format == "markdown":
        say(flips_markdown(found.flips) if flipped else comparison_markdown(found))
    else:
        out = console()
        if not flipped:
            out.print(comparison_table(found))
            print_lines(out, (*found.only_a, *found.only_b))
        if text := flips_text(found.flips):
            out.print(text, soft_wrap=True, highlight=False)
