"""Cells with failed samples, opened again: what was answered is kept as responses, so that only the rest is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.benchmark.prepare import prepare_cell
from core.campaign import CampaignSpec, benchmark_label
from core.errors import UserError
from core.log import log
from core.model.placement import Plan, PlannedModel
from core.model.weights import fetch_checkpoint
from core.results import open_store
from core.storage.open import open_storage
from core.upkeep.invalidate import invalidate
from core.upkeep.status import CellStatus, statuses


@dataclass(frozen=True)
class Failed:
    """What failed in a campaign's last run: ``models`` to evaluate again, and ``cells`` that are complete but for some docs."""

    models: tuple[str, ...]
    cells: tuple[CellStatus, ...]


def find_failed(spec: CampaignSpec) -> Failed:
    """Return what of the campaign's last run failed. Raises `core.errors.UserError` where the store knows of no run."""
    store = open_store(spec.results)
    runs = store.campaigns(spec.name)
    if not runs:
        raise UserError(f"campaign {spec.name!r} has no run in {store.uri}: use steelyard run")
    rows = [row for row in statuses(store, spec.name, spec) if row.model in {model.name for model in spec.models}]
    failed = [row for row in rows if row.state in ("failed", "begun") or row.failed_samples]
    names = {row.model for row in failed} | set(
        runs[-1].get("failures", {})
    )  # a judge's failure is in no cell of its own
    models = tuple(model.name for model in spec.models if model.name in names)
    return Failed(models, tuple(row for row in failed if row.failed_samples))


def reopen(spec: CampaignSpec, plan: Plan, failed: Failed) -> None:
    """Take the records of cells with failed samples away; the next run of the campaign asks what was not answered.

    Verdicts of judges stay as they are, and so does a cell that the spec would no longer ask for.
    """
    storage, store = open_storage(spec.results), open_store(spec.results)
    for row in failed.cells:
        planned = next(each for each in plan.models if each.model.name == row.model)
        benchmark = next((each for each in spec.benchmarks if benchmark_label(each) == row.benchmark), None)
        work = None if benchmark is None else prepare_cell(spec, planned, _weights(planned), benchmark)
        if work is None or work.cell.fingerprint != row.fingerprint:
            log.warning(
                f"{row.model} · {row.benchmark}: {row.failed_samples} failed samples stay: the spec asks otherwise now"
            )
            continue
        answered = work.benchmark.recall(store.cell_samples(row.fingerprint))
        with store.writer(row.fingerprint) as writer:
            for response in answered.values():
                writer.add(response)
        invalidate(storage, row.fingerprint, keep_responses=True)


def _weights(planned: PlannedModel) -> Path:
    # Without a chat template nothing of the checkpoint's files is needed.
    if not planned.model.chat_template:
        return Path(planned.checkpoint.source)
    return fetch_checkpoint(planned.checkpoint, weights=False)
