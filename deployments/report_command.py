"""``steelyard report``: one HTML file with everything people look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.errors import UserError


def report(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="s3://bucket/prefix, a directory, or a campaign's YAML.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write.")] = Path(
        "report.html"
    ),
    campaign: Annotated[str | None, typer.Option(help="Only this campaign.")] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="Only these benchmarks; several times, * and ? stand for any text.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only these models, named alike.")] = None,
    suite: Annotated[str | None, typer.Option(help="Only this suite's benchmarks, and the mean of them.")] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Most samples to put in; of more, one doc in so many of each task.")
    ] = 100_000,
) -> None:
    """Write a report that needs no network: leaderboard, charts, timeline, and a browser for every sample."""
    from core.board import Selection
    from core.campaign import load_spec
    from core.report_html import report_html
    from core.report_read import read_report
    from core.results import open_store
    from deployments.console import NOTHING, console

    if store.endswith((".yaml", ".yml", ".json")):
        spec = load_spec(store)
        store, campaign = spec.results, campaign or spec.name
    opened = open_store(store)
    found = read_report(opened, campaign, Selection(tuple(benchmark or ()), tuple(model or ()), suite), samples)
    if found.board.compared.board.empty:
        raise UserError(NOTHING.format(opened.uri))
    text = report_html(found)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {str(output)!r}: it cannot be written: {error.strerror or error}") from error
    console().print(f"{output}: {len(text.encode()) / 1e6:.1f} MB", soft_wrap=True, markup=False)
