"""``steelyard export --format mlflow`` and ``wandb``: what both have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.board.select import Selection
    from core.report.exchange.tracking_export import TrackedRun
    from core.results import Store

SCORES, SAMPLES = "scores", "samples"  # folders of a run's files


def export_to(
    tracker: str, store: Store, campaign: str | None, selection: Selection, *, project: str | None, samples: bool
) -> Iterator[str]:
    """Put each run into MLflow or W&B and say where it is. Raises `core.errors.UserError`: no client, or no server."""
    from deployments.trackers import mlflow_export, wandb_export

    export = (mlflow_export if tracker == "mlflow" else wandb_export).exporter(project)
    for run in read_tracked(store, campaign, selection):
        with TemporaryDirectory(prefix="steelyard-export-") as folder:
            write_files(Path(folder), store, run, samples=samples)
            yield export(run, Path(folder))


def read_tracked(store: Store, campaign: str | None, selection: Selection) -> list[TrackedRun]:
    """Read the newest run of each campaign, and without ``campaign`` what no run asked for, model by model."""
    import pandas as pd

    from core.board.select import select, with_facts
    from core.compare.sides import asked_cells
    from core.report.exchange.tracking_export import tracked_runs

    runs = list({run["campaign"]: run for run in store.campaigns(campaign)}.values())
    # Campaign by campaign: a leaderboard of all lists a cell that two share once.
    boards = [store.leaderboard(name) for name in ([campaign] if campaign else [run["campaign"] for run in runs])]
    if campaign is None:
        every = store.leaderboard()
        boards.append(every.loc[every["campaign"].isna()])
    board = select(pd.concat([each for each in boards if len(each)] or boards, ignore_index=True), selection)
    records = store.commit_records({*board["fingerprint"], *asked_cells(runs)})
    return tracked_runs(with_facts(board, records), store.scores(campaign), runs, records, store.uri)


def write_files(folder: Path, store: Store, run: TrackedRun, *, samples: bool) -> None:
    """Write ``scores/scores.csv`` and, if asked, ``samples/<benchmark>.parquet``, as in the store but for secrets."""
    import pandas as pd

    from core.redact import redact_all
    from core.sample import Cell, Sample
    from core.storage.storage import path_part
    from core.store.schema import SAMPLES as SCHEMA
    from core.store.schema import encode_parts, samples_tables

    (folder / SCORES).mkdir()
    pd.DataFrame(run.scores).to_csv(folder / SCORES / "scores.csv", index=False)
    if not samples:
        return
    (folder / SAMPLES).mkdir()
    for benchmark, fingerprint in run.cells.items():
        record = store.commit_record(fingerprint) or {"settings": {}}
        cell = Cell(fingerprint, run.tags["model"], benchmark, record["settings"])
        clean = [Sample(**values) for values in redact_all([vars(each) for each in store.cell_samples(fingerprint)])]
        with (folder / SAMPLES / f"{path_part(benchmark)}.parquet").open("wb") as file:
            file.writelines(encode_parts(SCHEMA, samples_tables(cell, clean, {})))
