"""Runs into MLflow, by its own client. Where to, and as whom, is what MLflow's own variables say (``MLFLOW_TRACKING_URI``)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.report.exchange.tracking_export import PROJECT, missing

if TYPE_CHECKING:
    from core.report.exchange.tracking_export import TrackedRun

KEY = "steelyard.key"
AT_ONCE = 100  # params that a server takes in one call
RETRIES = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # some 15 s; MLflow's own 7 keep a person waiting for minutes


def exporter(project: str | None) -> Callable[[TrackedRun, Path], str]:
    """Return what puts one run and the files of a folder into an experiment, and says where; one that is there is updated.

    Raises `core.errors.UserError` where the client is not installed; what is returned, where the server refuses or is away.
    """
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
            experiment = _experiment(client, name)
            known = _known(client, experiment, run)
            found = known or client.create_run(experiment, int(1000 * run.started), {KEY: run.key}, run_name=run.name)
            _log(client, found, run)
            client.log_artifacts(found.info.run_id, str(folder))
            client.set_terminated(found.info.run_id, "FAILED" if run.failed else "FINISHED", int(1000 * run.ended))
        except (MlflowException, OSError) as error:
            raise UserError(f"--format 'mlflow': {str(error).splitlines()[0]}; see MLFLOW_TRACKING_URI") from error
        return f"{run.name}: run {found.info.run_id} of experiment {name}{', updated' if known else ''}"

    return export


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise UserError(f"--project {name!r}: the experiment is deleted: restore it in MLflow or name another")
    return str(found.experiment_id)


def _known(client: Any, experiment: str, run: TrackedRun) -> Any:
    """Return the run that was exported before. MLflow changes no param, so one of which a param differs makes room."""
    for found in client.search_runs([experiment], f"tags.`{KEY}` = '{run.key}'", max_results=1):
        params = found.data.params
        if all(params.get(name, value) == value for name, value in run.params.items()):
            return found
        client.delete_run(found.info.run_id)
    return None


def _log(client: Any, found: Any, run: TrackedRun) -> None:
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
