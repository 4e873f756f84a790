"""Scores of a model line over its revisions, run after run, and where they changed.

A change is what `core.compare.between.compare_cells` finds between two revisions, over the benchmarks that both runs asked of the
model: the same as ``steelyard compare`` of those two runs or revisions, and as the alert after the later of two runs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from core.board.select import Selection, select
from core.compare.between import WORSE, compare_cells, sample_reader, score_intervals
from core.compare.sides import Cells, Records, asked_cells, cells_of, changed_cells, runs_and_records
from core.errors import StoreError, StoreUnreachableError
from core.results import Store
from core.tables import p_text

if TYPE_CHECKING:
    import pandas as pd

HISTORY_COLUMNS = (
    "model",
    "benchmark",
    "metric",
    "committed",
    "campaign",  # that asked first; None where no run did
    "run",
    "revision",
    "score",
    "low",
    "high",
    "difference",  # to the revision before, or to ``since``, on the docs both have a value for
    "p",
    "p_holm",  # over the model's benchmarks
    "change",  # "better" or "worse" where that difference is significant, else ""
    "since",  # the first revision since the last change, where it takes that one to see a slow change; else None
    "fingerprint",
)

log = logging.getLogger("steelyard.results")


@dataclass(frozen=True)
class Drop:
    """One model that does worse on one benchmark than in the run before."""

    model: str
    benchmark: str
    metric: str
    before: float
    after: float
    p_holm: float

    def __str__(self) -> str:
        p = p_text(self.p_holm)
        numbers = f"{self.before:.4f} → {self.after:.4f}"
        return f"{self.model} on {self.benchmark}: {self.metric} {numbers} (p {p if p[0] == '<' else f'= {p}'})"


@dataclass(frozen=True, eq=False)
class _AskedCells:
    """Complete cells of one model that one run asked for; without a campaign, those of one revision that no run did."""

    campaign: str | None
    run: str
    cells: Cells


@dataclass(frozen=True)
class _Point:
    """One revision of a line on one benchmark, as it was first asked for."""

    asked: _AskedCells
    record: Mapping[str, Any]


Compared = Callable[[_Point, _Point], Mapping[str, Any]]


def drops(store: Store, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Drop]:
    """Compare each model with itself in another run of a campaign (`core.results.Store.campaigns`): what got worse.

    Only the numbers per doc of cells that the two runs do not share are read; where they are damaged or gone, the log says so and
    the model has no drops. Raises `core.errors.StoreUnreachableError`.
    """
    records = store.commit_records(asked_cells([before, after]))
    old, new = cells_of(before, records), cells_of(after, records)
    for model, cells in new.items():
        pairs = changed_cells(old.get(model, {}), cells)
        try:
            rows = compare_cells(model, model, pairs, records, sample_reader(store))
        except StoreUnreachableError:
            raise
        except StoreError as error:
            log.warning("%s is not compared with the run before: %s", model, error)
            continue
        for row in rows:
            if row["change"] == WORSE:
                names = {name: row[name] for name in ("benchmark", "metric", "p_holm")}
                yield Drop(model, before=row["score_a"], after=row["score_b"], **names)


def history(store: Store, campaign: str | None = None, selection: Selection | None = None) -> pd.DataFrame:
    """Return `HISTORY_COLUMNS`, one row per model, benchmark and cell, oldest first.

    A line is what has one model name. Each revision is compared with the one before, and where they do not differ with the first
    one since the last change, so that slow drift is found too. A cell that several runs share comes once. Raises
    `core.errors.StoreError`, and `UserError` for a selection that nothing fits.
    """
    import pandas as pd

    runs, records = runs_and_records(store, campaign)
    asked = _asked(runs, records, unnamed=campaign is None)
    lines = sorted({(model, benchmark) for model, each in asked.items() for one in each for benchmark in one.cells})
    kept = select(pd.DataFrame(lines, columns=["model", "benchmark"]), selection or Selection())
    rows: list[dict[str, Any]] = []
    for model, benchmarks in kept.groupby("model")["benchmark"]:
        rows += _rows(store, str(model), sorted(benchmarks), asked[str(model)], records)
    return pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))


def _asked(runs: Iterable[Mapping[str, Any]], records: Records, *, unnamed: bool) -> dict[str, list[_AskedCells]]:
    found: dict[str, list[_AskedCells]] = {}
    for run in runs:
        for model, cells in cells_of(run, records).items():
            found.setdefault(model, []).append(_AskedCells(run["campaign"], run["run"], cells))
    left = set(records) - asked_cells(runs) if unnamed else set()
    revisions: dict[tuple[str, str], list[_AskedCells]] = {}
    # Newest first: a revision's newest cell of a benchmark counts, as in `core.compare.sides`.
    for record in sorted((records[each] for each in left), key=lambda each: each["committed"], reverse=True):
        own = revisions.setdefault((record["model"], _revision(record)), [])
        home = next((each for each in own if record["benchmark"] not in each.cells), None)
        if home is None:
            home = _AskedCells(None, "", {})
            own.append(home)
            found.setdefault(record["model"], []).append(home)
        home.cells[record["benchmark"]] = record["fingerprint"]
    return found


def _revision(record: Mapping[str, Any]) -> str:
    return str(record["settings"].get("revision") or record["settings"].get("checkpoint"))


def _rows(
    store: Store, model: str, benchmarks: Sequence[str], asked: Sequence[_AskedCells], records: Records
) -> Iterator[dict[str, Any]]:
    samples = sample_reader(store)

    @cache
    def step(before: _AskedCells, after: _AskedCells) -> dict[str, dict[str, Any]]:
        changed = changed_cells(before.cells, after.cells)
        pairs = {benchmark: cells for benchmark, cells in changed.items() if benchmark in benchmarks}
        return {row["benchmark"]: row for row in compare_cells(model, model, pairs, records, samples)}

    @cache
    def intervals(each: _AskedCells) -> dict[str, tuple[float, float]]:
        return score_intervals({name: each.cells[name] for name in benchmarks if name in each.cells}, records, samples)

    def compared(before: _Point, after: _Point) -> Mapping[str, Any]:
        return step(_as_asked(asked, before.record, after.asked), after.asked)[after.record["benchmark"]]

    for benchmark in benchmarks:
        points: dict[str, _Point] = {}
        for each in asked:
            if cell := each.cells.get(benchmark):
                points.setdefault(cell, _Point(each, records[cell]))
        ordered = sorted(points.values(), key=lambda point: (point.record["committed"], point.asked.run))
        for point, change in zip(ordered, _changes(ordered, compared), strict=True):
            low, high = intervals(point.asked)[benchmark]
            yield {
                "model": model,
                "benchmark": benchmark,
                "metric": point.record["headline"]["metric"],
                "committed": point.record["committed"],
                "campaign": point.asked.campaign,
                "run": point.asked.run,
                "revision": point.record["settings"].get("revision"),
                "score": point.record["headline"]["value"],
                "low": low,
                "high": high,
                "fingerprint": point.record["fingerprint"],
                **change,
            }


def _as_asked(asked: Sequence[_AskedCells], record: Mapping[str, Any], after: _AskedCells) -> _AskedCells:
    """Return the cells among which a cell was asked for: by the last run before ``after``, of its campaign if there is one."""
    having = [each for each in asked if each.cells.get(record["benchmark"]) == record["fingerprint"]]
    return max(having, key=lambda each: (each.run < after.run, each.campaign == after.campaign, each.run))


def _changes(points: Sequence[_Point], compared: Compared) -> Iterator[dict[str, Any]]:
    """Yield the change at each point of a line: from the one before, or else from the first since the last change."""
    start = before = None
    for point in points:
        found: Mapping[str, Any] = {"difference": math.nan, "p": math.nan, "p_holm": math.nan, "change": ""}
        since = None
        if before is not None and start is not None:
            found = compared(before, point)
            if not found["change"] and start is not before and (slow := compared(start, point))["change"]:
                found, since = slow, _revision(start.record)
        if found["change"] or math.isnan(found["p"]):
            start = point
        before = point
        yield {**{name: found[name] for name in ("difference", "p", "p_holm", "change")}, "since": since}
