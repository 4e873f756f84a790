"""The terminal side of the command line: arguments that commands share, what is printed where, and what stays quiet.

All that is printed goes through `say` or a `Terminal`: ruff's T20 forbids print elsewhere.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType
from rich.logging import RichHandler
from rich.segment import Segment
from rich.text import Text

from core.campaign import CampaignSpec, load_spec
from core.errors import UserError, nearest
from core.redact import redact_logs
from core.results import Store, open_store
from core.tables import Row, Table, for_spreadsheets, markdown_text, texts
from core.visible import one_line, visible

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
    """Send Steelyard's own lines to stderr and keep its libraries quiet. Variables that are set already win."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    redact_logs()
    handler = LogLines(console=terminal(), show_path=False, show_level=False, markup=False, log_time_format="%X")
    logger = logging.getLogger("steelyard")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)


class Terminal(Console):
    """A console on which no text is markup and none steers the terminal, whoever wrote it: rich's own codes alone do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make text of a string, `visible` before lines are broken."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of anything; what steers is in control segments, which rich makes."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


class LogLines(RichHandler):
    """Log records on a `Terminal`."""

    def render_message(self, record: logging.LogRecord, message: str) -> ConsoleRenderable:
        """Make text of a message, `visible` before lines are broken."""
        return super().render_message(record, visible(message))


@functools.cache
def terminal() -> Terminal:
    """Return the one console of a run: a live display and log lines share it, or they would interleave."""
    return console(stderr=True)


def say(text: object, *, err: bool = False) -> None:
    """Print a text as it is but for `visible` escapes, to stdout or to stderr."""
    print(visible(str(text)), file=sys.stderr if err else sys.stdout, flush=True)


def complain(problem: object) -> None:
    """Print a line on what went wrong to stderr."""
    say(f"steelyard: {problem}", err=True)


def say_json(value: Any) -> None:
    """Print a value as one line of JSON, exactly: what a terminal would obey is escaped as JSON has it."""
    say(json.dumps(value).replace("\x7f", r"\u007f"))


def console(*, stderr: bool = False) -> Terminal:
    """Return a console as wide as the terminal, and wide enough for whole tables where the output goes to a file."""
    out = Terminal(stderr=stderr)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = FILE_WIDTH
    return out


def print_leaderboard(store: Store, campaign: str) -> None:
    """Print the leaderboard of a campaign that has run."""
    from core.compare.compare import compare_store

    board = compare_store(store, campaign).board
    print_board(store, board, store.campaigns(campaign)[-1:], [("Leaderboard", board)])


def print_board(
    store: Store, board: pd.DataFrame, runs: Sequence[Mapping[str, Any]], parts: Iterable[tuple[str, pd.DataFrame]]
) -> None:
    """Print the leaderboard in ``parts``, where each model ran and why, whether engines agree, and where the Parquet is.

    Of one campaign (``runs`` has the newest of each) also what the run took and was expected to take, and its report.
    """
    from core.board.text import engine_findings, leaderboard_table, runs_table
    from core.monitor.timeline import lanes
    from core.planning.cost.expected import spent_line

    out = console()
    if board.empty:
        out.print(NOTHING.format(store.uri), soft_wrap=True)
        return
    for title, part in parts:
        out.print(leaderboard_table(part, title))
    out.print(runs_table(board))
    lines = engine_findings(runs)
    campaign = runs[0]["campaign"] if len(runs) == 1 else None
    if campaign is not None and (spent := spent_line(runs[0], lanes(store.timeline(campaign, runs[0]["run"])))):
        lines.append(spent)
    print_lines(out, lines)
    out.print(f"Samples: {store.uri}/samples   Scores: {store.uri}/scores", soft_wrap=True)
    if campaign is not None and (reports := store.reports(campaign)):
        out.print(f"Report: {reports[-1]}", soft_wrap=True)


def print_lines(out: Console, lines: Iterable[str]) -> None:
    """Print each text on a line of its own."""
    for line in lines:
        out.print(one_line(line), soft_wrap=True)


def print_rows(frame: pd.DataFrame, format: str, file: TextIO | None = None) -> None:
    """Print plain rows as ``format`` csv or json, to the terminal or a file. JSON has texts exactly, CSV `for_spreadsheets`."""
    out = file or sys.stdout
    if format == "csv":
        for_spreadsheets(frame).to_csv(out, index=False)
    else:
        lines = frame.to_json(orient="records", lines=True, double_precision=15).lstrip("\n")
        out.write(lines.replace("\x7f", r"\u007f"))


def print_columns(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print text in plain columns."""
    say(Table("", texts(*names), [Row(row) for row in rows]).plain())


def print_timeline(store: Store, campaign: str | None, format: str) -> None:
    """Print what ran when in the newest run of ``campaign``, or of each campaign, as ``format``.

    Raises `core.errors.UserError` for a format it does not know.
    """
    import pandas as pd

    from core.monitor.timeline import lanes, timeline_rows
    from core.monitor.timeline_chart import COLUMNS, timeline_markdown, timeline_table

    check_format(format)
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
            out = console()
            out.print(timeline_table(name, found[name], min(COLUMNS, max(20, out.width - 45))))
        else:
            say(f"{markdown_text(name)}\n\n{timeline_markdown(found[name])}")


def check_format(format: str, known: Sequence[str] = FORMATS) -> None:
    """Raise `core.errors.UserError` for a format that a command does not have."""
    if format not in known:
        raise UserError(f"format {format!r}: use one of {', '.join(known)}{nearest(format, known)}")


STORE_HELP = "s3://bucket/prefix, a directory, or a campaign's YAML."

SpecPath = Annotated[Path, typer.Argument(metavar="CAMPAIGN.YAML", help="Campaign specification, YAML or JSON.")]
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help=STORE_HELP)]
StoreOption = Annotated[str, typer.Option("--store", metavar="STORE", help=STORE_HELP)]
CampaignOption = Annotated[str | None, typer.Option(help="Only this campaign.")]
BenchmarkOption = Annotated[
    list[str] | None, typer.Option(help="Only these benchmarks; several times, * and ? stand for any text.")
]
ModelOption = Annotated[list[str] | None, typer.Option(help="Only these models, named alike.")]
SuiteOption = Annotated[
    str | None, typer.Option(help="Only this suite's benchmarks, and the mean of them as one more.")
]


def store_of(place: str) -> tuple[str, CampaignSpec | None]:
    """Return the URI of the store that ``place`` names, and the spec where it is one."""
    if place.endswith((".yaml", ".yml", ".json")):
        spec = load_spec(place)
        return spec.results, spec
    return place, None


def opened(place: str, campaign: str | None = None) -> tuple[Store, str | None]:
    """Open the store that ``place`` names. The campaign of a YAML counts unless another is named."""
    uri, spec = store_of(place)
    return open_store(uri), campaign or (spec.name if spec else None)
