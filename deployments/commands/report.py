"""``steelyard report``: one HTML file with everything people look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import UserError
from deployments.console import BenchmarkOption, CampaignOption, ModelOption, StoreArgument, SuiteOption, opened


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
    from deployments.console import NOTHING, console

    source, campaign = opened(store, campaign)
    found = read_report(source, campaign, Selection(tuple(benchmark or ()), tuple(model or ()), suite), samples)
    if found.board.compared.board.empty:
        raise UserError(NOTHING.format(source.uri))
    text = report_html(found)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {str(output)!r}: it cannot be written: {error.strerror or error}") from error
    console().print(f"{output}: {len(text.encode()) / 1e6:.1f} MB", soft_wrap=True, markup=False)
