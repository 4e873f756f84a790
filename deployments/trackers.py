"""``steelyard export --format mlflow`` and ``wandb``: runs into MLflow or Weights & Biases, by their own clients.

Server and login come from the clients' own variables (``MLFLOW_TRACKING_URI``, ``WANDB_API_KEY``, …). Both exporters raise
`core.errors.UserError` where the client is not installed; the functions that they return, where the server refuses or is away.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from core.board.select import Selection, select, with_facts
from core.compare.sides import asked_cells
from core.errors import UserError
from core.redact import redact_all
from core.report.exchange.tracking_export import PROJECT, TrackedRun, missing, tracked_runs
from core.results import Store
from core.sample import Cell, Sample
from core.storage.storage import path_part
from core.store.schema import SAMPLES as SCHEMA
from core.store.schema import encode_parts, samples_tables
from core.tables import for_spreadsheets

Exporter = Callable[[TrackedRun, Path], str]

SCORES, SAMPLES = "scores", "samples"  # folders of a run's files
KEY = "steelyard.key"
AT_ONCE = 100  # params that a server takes in one call
RETRIES = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # some 15 s; MLflow's own 7 keep a person waiting for minutes
LONGEST_TAG = 64
# Nothing of this machine, its environment, its packages or the working directory's repository goes out.
PRIVATE = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


def export_to(
    tracker: str, store: Store, campaign: str | None, selection: Selection, *, project: str | None, samples: bool
) -> Iterator[str]:
    """Put each run into MLflow or W&B and yield where it is. Raises `core.errors.UserError`: no client, or no server."""
    export = (mlflow_exporter if tracker == "mlflow" else wandb_exporter)(project)
    for run in read_tracked(store, campaign, selection):
        with TemporaryDirectory(prefix="steelyard-export-") as folder:
            write_files(Path(folder), store, run, samples=samples)
            yield export(run, Path(folder))


def read_tracked(store: Store, campaign: str | None, selection: Selection) -> list[TrackedRun]:
    """Read the newest run of each campaign, and without ``campaign`` what no run asked for, model by model."""
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
    (folder / SCORES).mkdir()
    for_spreadsheets(pd.DataFrame(run.scores)).to_csv(folder / SCORES / "scores.csv", index=False)
    if not samples:
        return
    (folder / SAMPLES).mkdir()
    for benchmark, fingerprint in run.cells.items():
        record = store.commit_record(fingerprint) or {"settings": {}}
        cell = Cell(fingerprint, run.tags["model"], benchmark, record["settings"])
        clean = [Sample(**values) for values in redact_all([vars(each) for each in store.cell_samples(fingerprint)])]
        with (folder / SAMPLES / f"{path_part(benchmark)}.parquet").open("wb") as file:
            file.writelines(encode_parts(SCHEMA, samples_tables(cell, clean, {})))


def mlflow_exporter(project: str | None) -> Exporter:
    """Return a function that puts a run and a folder's files into an experiment and returns where; one there already is updated."""
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise missing("mlflow", error) from error
    os.environ.setdefault(*RETRIES)
    name = project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT

    def export(run: TrackedRun, folder: Path) -> str:
        try:
            client = MlflowClient()
            experiment = _mlflow_experiment(client, name)
            known = _mlflow_run(client, experiment, run)
            found = known or client.create_run(experiment, int(1000 * run.started), {KEY: run.key}, run_name=run.name)
            _log_to_mlflow(client, found, run)
            client.log_artifacts(found.info.run_id, str(folder))
            client.set_terminated(found.info.run_id, "FAILED" if run.failed else "FINISHED", int(1000 * run.ended))
        except (MlflowException, OSError) as error:
            raise UserError(f"--format 'mlflow': {str(error).splitlines()[0]}; see MLFLOW_TRACKING_URI") from error
        return f"{run.name}: run {found.info.run_id} of experiment {name}{', updated' if known else ''}"

    return export


def _mlflow_experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise UserError(f"--project {name!r}: the experiment is deleted: restore it in MLflow or name another")
    return str(found.experiment_id)


def _mlflow_run(client: Any, experiment: str, run: TrackedRun) -> Any:
    """Return the run that was exported before. MLflow changes no param, so one of which a param differs makes room."""
    for found in client.search_runs([experiment], f"tags.`{KEY}` = '{run.key}'", max_results=1):
        params = found.data.params
        if all(params.get(name, value) == value for name, value in run.params.items()):
            return found
        client.delete_run(found.info.run_id)
    return None


def _log_to_mlflow(client: Any, found: Any, run: TrackedRun) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now, of, known = int(1000 * time.time()), found.info.run_id, found.data
    params = [Param(name, value) for name, value in run.params.items() if name not in known.params]
    for start in range(0, len(params), AT_ONCE):
        client.log_batch(of, params=params[start : start + AT_ONCE])
    # What has not changed is not logged again: it would be one more point of the metric's history.
    changed = [Metric(name, value, now, 0) for name, value in run.metrics.items() if known.metrics.get(name) != value]
    for start in range(0, len(changed), AT_ONCE):
        client.log_batch(of, metrics=changed[start : start + AT_ONCE])
    client.log_batch(of, tags=[RunTag(f"steelyard.{name}", value) for name, value in run.tags.items()])


def wandb_exporter(project: str | None) -> Exporter:
    """Return a function that puts a run and a folder's files into a project and returns where; one there already is updated."""
    try:
        import wandb
    except ImportError as error:
        raise missing("wandb", error) from error
    name = project or os.environ.get("WANDB_PROJECT") or PROJECT

    def export(run: TrackedRun, folder: Path) -> str:
        labels = [run.tags[tag][:LONGEST_TAG] for tag in ("campaign", "run") if tag in run.tags]
        try:
            with wandb.init(
                project=name,
                id=run.key,
                resume="allow",
                name=run.name,
                group=run.tags.get("campaign"),
                job_type="evaluation",
                tags=labels,
                config={**run.params, **{f"steelyard/{tag}": value for tag, value in run.tags.items()}},
                settings=wandb.Settings(**PRIVATE),
            ) as opened:
                # Its summary, not its history: that would have one step more after each export.
                opened.summary.update(dict(run.metrics))
                for kind in sorted(folder.iterdir()):
                    artifact = wandb.Artifact(f"{run.key}-{kind.name}", kind.name)
                    for path in sorted(kind.iterdir()):
                        artifact.add_file(str(path), path.name)
                    opened.log_artifact(artifact)
                place = opened.dir if opened.offline else opened.url
        except (wandb.Error, OSError) as error:
            raise UserError(f"--format 'wandb': {str(error).splitlines()[0]}; see WANDB_API_KEY, WANDB_MODE") from error
        return f"{run.name}: {place}"

    return export
