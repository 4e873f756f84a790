"""The terminal side of the command line: what is printed where, and what stays quiet."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.logging import RichHandler

from core.errors import UserError, nearest
from core.redact import redact_logs
from core.results import Store

if TYPE_CHECKING:
    import pandas as pd

# Read by Prefect and vLLM when they are first imported. Prefect's own lines go to its run logs, not to the terminal.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "steelyard",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "VLLM_NO_USAGE_STATS": "1",
}

FILE_WIDTH = 160
FORMATS = ("table", "markdown", "csv", "json")
NOTHING = "No complete results in {} yet"


def configure() -> None:
    """Send Steelyard's own lines to stderr and keep its libraries quiet. What the environment says already wins."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    redact_logs()
    handler = RichHandler(console=terminal(), show_path=False, show_level=False, markup=False, log_time_format="%X")
    logger = logging.getLogger("steelyard")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)


@functools.cache
def terminal() -> Console:
    """The one console for what is said while something runs: a live display and log lines share it, or they would interleave."""
    return console(stderr=True)


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, and wide enough for whole tables where the output goes to a file."""
    out = Console(stderr=stderr)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = FILE_WIDTH
    return out


def print_leaderboard(store: Store, campaign: str | None) -> None:
    """Print the leaderboard, where each model ran and why, whether engines agree, and where the Parquet is."""
    from core.board.text import engine_findings, leaderboard_table, runs_table
    from core.compare.compare import compare_store

    frame = compare_store(store, campaign).board
    out = console()
    if frame.empty:
        out.print(NOTHING.format(store.uri), soft_wrap=True)
        return
    out.print(leaderboard_table(frame))
    out.print(runs_table(frame))
    runs = store.campaigns(campaign)
    for finding in engine_findings(runs):
        out.print(finding, soft_wrap=True, markup=False)
    if campaign is not None and runs:
        print_spent(store, runs[-1], out)
    print_places(store, campaign, out)


def print_spent(store: Store, run: Mapping[str, Any], out: Console) -> None:
    """Print what a run took, and what it was expected to take."""
    from core.cost.spent import spent_line
    from core.monitor.timeline import lanes

    if line := spent_line(run, lanes(store.timeline(run["campaign"], run["run"]))):
        out.print(line, soft_wrap=True, markup=False)


def print_places(store: Store, campaign: str | None, out: Console) -> None:
    """Print where the Parquet is, and a campaign's newest report."""
    out.print(f"Samples: {store.uri}/samples   Scores: {store.uri}/scores", soft_wrap=True)
    if campaign is not None and (reports := store.reports(campaign)):
        out.print(f"Report: {reports[-1]}", soft_wrap=True, markup=False)


def print_rows(frame: pd.DataFrame, format: str, file: TextIO | None = None) -> None:
    """Print plain rows as ``format`` csv or json, to the terminal or a file."""
    out = file or sys.stdout
    if format == "csv":
        frame.to_csv(out, index=False)
    else:
        out.write(frame.to_json(orient="records", lines=True, double_precision=15).lstrip("\n"))


def print_timeline(store: Store, campaign: str | None, format: str) -> None:
    """Print what ran when in the newest run of ``campaign``, or of each campaign, as ``format``.

    Raises `core.errors.UserError` for a format it does not know.
    """
    import pandas as pd

    from core.monitor.timeline import lanes, timeline_rows
    from core.monitor.timeline_chart import timeline_markdown, timeline_table

    _check_format(format)
    names = [campaign] if campaign is not None else sorted({run["campaign"] for run in store.campaigns()})
    found = {name: lanes(store.timeline(name)) for name in names}
    if not any(found.values()):
        console().print(f"No timeline in {store.uri} yet", soft_wrap=True)
        return
    if format in ("csv", "json"):
        print_rows(
            pd.DataFrame({"campaign": name, **row} for name in names for row in timeline_rows(found[name])), format
        )
        return
    for name in filter(found.get, names):
        if format == "table":
            console().print(timeline_table(name, found[name]))
        else:
            print(f"{name}\n\n{timeline_markdown(found[name])}")


def _check_format(format: str) -> None:
    if format not in FORMATS:
        raise UserError(f"format {format!r}: use one of {', '.join(FORMATS)}{nearest(format, FORMATS)}")
