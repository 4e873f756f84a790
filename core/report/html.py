"""The report: one HTML file that needs nothing else, and what it shows of a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import yaml

from core.board.read import Board, read_board
from core.board.select import Selection
from core.board.text import leaderboard_rows, leaderboard_table
from core.monitor.timeline import Lane, lanes
from core.planning.cost.expected import price_of, spent_line
from core.report.charts import charts
from core.report.samples import COLUMNS, TEXT_LIMITS, Packed, pack
from core.results import Store
from core.tables import Table

if TYPE_CHECKING:
    import pandas as pd

PAGE = Path(__file__).parent / "page"
MOST_SAMPLES = 100_000
MOST_READ = 3_000_000  # of more, whose cells would be read whole, a report has none: that would take minutes
MOST_BYTES = 45_000_000  # of samples; with the plotting library and the page the file stays below 60 MB
SIZE = "size,\u00a0GB"
USAGE_HEADINGS = (
    "model",
    "held,\u00a0s",
    "working,\u00a0s",
    "working share",
    "GPU-seconds",
    "GPU utilisation, mean %",
    "KV cache, peak %",
    "prompt tokens",
    "completion tokens",
    "energy,\u00a0kJ",
)


@dataclass(frozen=True)
class Report:
    """The contents of a report. ``samples`` for `core.report.samples.pack`: one doc in ``every`` of each task, none for 0."""

    title: str
    board: Board
    timelines: Mapping[str, Sequence[Lane]]
    samples: pd.DataFrame
    every: int = 1


def read_report(
    store: Store,
    campaign: str | None = None,
    selection: Selection | None = None,
    most_samples: int = MOST_SAMPLES,
    run: str | None = None,
) -> Report:
    """Read the leaderboard, timelines, and the samples behind it: all of them, or one doc in so many that there are few enough.

    ``run`` names the run whose timeline counts, the newest if left out. Raises `core.errors.StoreError`, and
    `core.errors.UserError` for a selection that nothing fits.
    """
    board = _one_each(read_board(store, campaign, selection or Selection()))
    names = [campaign] if campaign is not None else [each["campaign"] for each in board.runs]
    timelines = {name: found for name in names if (found := lanes(store.timeline(name, run)))}
    total = sum(_stored_samples(board, fingerprint) for fingerprint in board.compared.board["fingerprint"])
    every = 0 if not most_samples or total > MOST_READ else max(1, -(-total // most_samples))  # rounded up
    title = f"Evaluation report: {campaign}" if campaign else "Evaluation report"
    return Report(title, board, timelines, _samples(board, every), every)


def _one_each(board: Board) -> Board:
    """Leave one cell for each model and benchmark: that of the newest run, or the one committed last where no run asks for any."""
    frame = board.compared.board
    ordered = frame.assign(_unnamed=frame["campaign"].isna(), _age=frame["committed"].rank(ascending=False))
    ordered["_age"] = ordered["_age"].where(ordered["_unnamed"], 0)
    kept = ordered.sort_values(["_unnamed", "_age"], kind="stable").drop_duplicates(["model", "benchmark"])
    if len(kept) == len(frame):
        return board
    remark = f"{len(frame) - len(kept)} older results of the same models and benchmarks are left out here."
    rest = frame.loc[sorted(kept.index)].reset_index(drop=True)
    return replace(board, compared=replace(board.compared, board=rest), remarks=[*board.remarks, remark])


def _stored_samples(board: Board, fingerprint: str) -> int:
    files = board.records[fingerprint]["files"] if fingerprint in board.records else []
    return sum(entry["rows"] for entry in files if entry["path"].startswith("samples/"))


def _samples(board: Board, every: int) -> pd.DataFrame:
    import pandas as pd

    parts = []
    for row in board.compared.board.to_dict("records") if every else []:
        if row["fingerprint"] in board.records:
            own = board.store.samples_of_cells([row["fingerprint"]], COLUMNS)
            parts.append(own[own["doc_id"] % every == 0].assign(model=row["model"], benchmark=row["benchmark"]))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*COLUMNS, "model", "benchmark"])


def report_html(report: Report, most_bytes: int = MOST_BYTES) -> str:
    """Return the page. Whatever models wrote stands in it as text."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    board = report.board
    rows = [row | _totals(row, board) for row in leaderboard_rows(board.compared.board)]
    drawn = charts(rows, report.timelines)
    heads = {(row["model"], row["benchmark"]): row for row in rows}
    packed = pack(report.samples, heads, most_bytes)
    table = leaderboard_table(board.compared.board)
    page = Environment(loader=FileSystemLoader(PAGE), autoescape=True, keep_trailing_newline=True).get_template(
        "page.html"
    )
    return page.render(
        title=report.title,
        subtitle=_subtitle(report, rows),
        partial=list(map(str, board.partial)),
        sections=[("leaderboard", "Leaderboard"), *((f"section-{each.id}", each.title) for each in drawn), *SECTIONS],
        headings=[*(column.heading for column in table.columns), SIZE],
        numbers={"95% interval", SIZE, *(column.heading for column in table.columns if column.number)},
        board=list(_board_rows(rows, table)),
        remarks=[*board.remarks, *table.notes, *board.findings],
        charts=drawn,
        charts_json=Markup(_script_json({each.id: each.views for each in drawn})),  # noqa: S704
        usage_headings=USAGE_HEADINGS,
        usage=_usage(rows, report),
        spent=_spent(board.runs, report.timelines),
        samples_note=_samples_note(packed, report.every),
        runs=[_run(run) for run in board.runs],
        cells=[_cell(row, board.records.get(row["fingerprint"])) for row in rows],
        index=packed.index,
        pages=packed.pages,
        css=_own("page.css"),
        plotly=_script(get_plotlyjs()),
        samples_js=_own("samples.js"),
        page_js=_own("page.js"),
    )


SECTIONS = (("utilisation", "Utilisation"), ("samples", "Samples"), ("environment", "Environment"))


def _own(name: str) -> Any:
    return _script((PAGE / name).read_text(encoding="utf-8"))


def _script(text: str) -> Any:
    """Return a script or style sheet as markup that cannot end its element early."""
    from markupsafe import Markup

    return Markup(text.replace("</script", "<\\/script").replace("<!--", "<\\!--"))  # noqa: S704


def _script_json(value: Any) -> str:
    """Return JSON that can stand in a script element, whatever its strings hold."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _subtitle(report: Report, rows: Sequence[Mapping[str, Any]]) -> str:
    counts = [len({row[name] for row in rows}) for name in ("model", "benchmark")]
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{counts[0]} models, {counts[1]} benchmarks, from {report.board.store.uri}; made {made}"


def _totals(row: Mapping[str, Any], board: Board) -> dict[str, Any]:
    prices = {run["campaign"]: price_of(run) for run in board.runs}
    price, seconds = prices.get(row["campaign"]), row["gpu_seconds"]
    tokens = [row[name] for name in ("prompt_tokens", "completion_tokens") if row[name] is not None]
    return {
        "tokens": sum(tokens) if tokens else None,
        "cost": None if price is None or seconds is None else price * seconds / 3600.0,
    }


def _board_rows(rows: Sequence[dict[str, Any]], table: Table) -> Iterable[dict[str, Any]]:
    above = None
    for row, shown in zip(rows, table.rows, strict=True):
        size = "" if row["weight_gb"] is None else f"{row['weight_gb']:.2f}"
        yield {"cells": [*shown.cells, size], "best": shown.bold, "first": shown.group != above}
        above = shown.group


def _usage(rows: Sequence[Mapping[str, Any]], report: Report) -> list[list[str]]:
    records = report.board.records
    by_model: dict[str, list[Lane]] = {}
    for found in report.timelines.values():
        for lane in found:
            by_model.setdefault(lane.spans[0].model, []).append(lane)
    usage = []
    for model in sorted({row["model"] for row in rows}):
        own = {row["fingerprint"]: row for row in rows if row["model"] == model}
        monitors = [(records[cell]["metadata"].get("monitor") or {}) for cell in own if cell in records]
        held = sum(lane.held_seconds for lane in by_model.get(model, ()))
        working = sum(lane.working_seconds for lane in by_model.get(model, ()))
        usage.append(
            [
                model,
                f"{held:,.1f}" if held else "",
                f"{working:,.1f}" if held else "",
                f"{working / held:.0%}" if held else "",
                _text((row["gpu_seconds"] for row in own.values()), ",.1f"),
                _text((monitor.get("gpu_utilisation_mean") for monitor in monitors), ".0f", fmean),
                _text((monitor.get("kv_cache_usage_peak") for monitor in monitors), ".1f", max, 100.0),
                _text((row["prompt_tokens"] for row in own.values()), ",.0f"),
                _text((row["completion_tokens"] for row in own.values()), ",.0f"),
                _text((monitor.get("energy_joules") for monitor in monitors), ",.1f", sum, 0.001),
            ]
        )
    return usage


def _spent(runs: Iterable[Mapping[str, Any]], timelines: Mapping[str, Sequence[Lane]]) -> list[str]:
    lines = (spent_line(run, timelines.get(run["campaign"], ())) for run in runs)
    return [line for line in lines if line is not None]


def _text(
    values: Iterable[float | None], form: str, total: Callable[[list[float]], float] = sum, scale: float = 1.0
) -> str:
    known = [value for value in values if value is not None]
    return format(scale * total(known), form) if known else ""


def _samples_note(packed: Packed, every: int) -> str:
    if not every:
        return "Without samples; ask for a part of them: steelyard report STORE --benchmark NAME --model NAME."
    note = f"{packed.rows:,} samples."
    if every > 1:
        note += f" One doc in {every} of each task, the same for every model."
    if packed.text_limit != TEXT_LIMITS[0]:
        note += f" Texts of more than {packed.text_limit:,} characters lack their middle; the store has them whole."
    return note


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
    spec = run.get("spec")
    return {
        "campaign": run["campaign"],
        "run": run["run"],
        "versions": list((run.get("versions") or {}).items()),
        "findings": [run["engines"]["text"]] if run.get("engines") else [],
        "spec": yaml.safe_dump(spec, sort_keys=False) if spec else "not stored: the run has not ended",
    }


def _cell(row: Mapping[str, Any], record: Mapping[str, Any] | None) -> dict[str, Any]:
    settings = {} if record is None else record["settings"]
    return {
        **{name: row[name] or "" for name in ("benchmark", "model", "revision", "committed", "fingerprint")},
        "dtype": settings.get("dtype", ""),
        "settings": json.dumps(settings, indent=1, ensure_ascii=False),
    }
