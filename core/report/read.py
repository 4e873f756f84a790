"""What a report shows, read from a store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from core.board.read import Board, read_board
from core.board.select import Selection
from core.monitor.timeline import lanes
from core.report.html import Report
from core.report.samples import COLUMNS
from core.results import Store

if TYPE_CHECKING:
    import pandas as pd

MOST_SAMPLES = 100_000
MOST_READ = 3_000_000  # of more, whose cells would be read whole, a report has none: that would take minutes


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
    total = sum(_rows(board, fingerprint) for fingerprint in board.compared.board["fingerprint"])
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


def _rows(board: Board, fingerprint: str) -> int:
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
