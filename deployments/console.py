"""The terminal side of the command line: what is printed where, and what stays quiet."""

from __future__ import annotations

import functools
import logging
import os
import sys

from rich.console import Console
from rich.logging import RichHandler

from core.errors import UserError
from core.results import Store

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


def configure() -> None:
    """Send Steelyard's own lines to stderr and keep its libraries quiet. What the environment says already wins."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
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
    """Print the leaderboard, where each model ran and why, and where the Parquet is."""
    from core.report import leaderboard_table, runs_table

    frame = store.leaderboard(campaign)
    out = console()
    if frame.empty:
        out.print(f"No complete results in {store.uri} yet", soft_wrap=True)
        return
    out.print(leaderboard_table(frame))
    out.print(runs_table(frame))
    out.print(f"Samples: {store.uri}/samples   Scores: {store.uri}/scores", soft_wrap=True)


def print_frame(store: Store, campaign: str | None, format: str) -> None:
    """Print the leaderboard as ``format``. Raises `core.errors.UserError` for a format it does not know."""
    if format == "table":
        print_leaderboard(store, campaign)
        return
    frame = store.leaderboard(campaign)
    if format == "csv":
        frame.to_csv(sys.stdout, index=False)
    elif format == "json":
        sys.stdout.write(frame.to_json(orient="records", lines=True).lstrip("\n"))
    elif format == "markdown":
        from core.report import leaderboard_markdown

        print(leaderboard_markdown(frame))
    else:
        raise UserError(f"format {format!r}: use one of table, markdown, csv, json")
