"""Scores of a campaign made again from its stored answers, where a metric, a filter or a target has changed since."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from core.benchmark.cell import find_donor
from core.benchmark.prepare import judges_of
from core.campaign import CampaignSpec
from core.cell_work import CellWork
from core.errors import StoreError, TransientError
from core.log import log
from core.model.placement import PlannedModel
from core.results import new_run_id, open_store
from flows.failures import CellsFailedError, cell_reason, in_words
from flows.interrupt import run_interruptible
from flows.spec_flow import spec_flow
from tasks.evaluate import score_again, score_answered
from tasks.plan import check
from tasks.prepare import fetch_weights, prepare, prepare_judging
from tasks.publish import Failures, publish, record_model, record_verdicts


@dataclass(frozen=True)
class Rescored:
    """Labels of a campaign's cells: scored again now, unchanged since they were stored, and without answers to score."""

    run: str
    rescored: tuple[str, ...]
    unchanged: tuple[str, ...]
    missing: tuple[str, ...]


class Outcome(NamedTuple):
    """What came of one cell; ``reason`` where it failed."""

    work: CellWork
    kind: Literal["rescored", "unchanged", "missing", "failed"]
    reason: str = ""


@spec_flow(flow_run_name="rescore {spec.name}", persist_result=False)
def rescore(spec: CampaignSpec) -> Rescored:
    """Score a campaign's stored answers by its benchmarks as they are now; a mapping or its file's path will do too.

    Starts no engine. Answers of cells that failed in scoring count too. Old scores stay under their fingerprints; the leaderboard
    shows the new ones. Cells whose requests have changed, or that were never run, are listed and left to `steelyard.campaign`.
    Raises `core.errors.UserError` for bad input, and `flows.failures.CellsFailedError` where cells cannot be scored, once all else
    is stored.

    Args:
        spec: Models, benchmarks, and where results are.
    """
    plan = check(spec)
    run, started = new_run_id(), time.monotonic()
    cells = run_interruptible(lambda: _rescore_models(spec, plan.models, run))
    failed = {model: in_words(model, reasons) for model, reasons in _failures(cells).items()}
    publish(spec, run, failed, time.monotonic() - started)
    found = {
        kind: tuple(cell.work.label for cell in cells if cell.kind == kind)
        for kind in ("rescored", "unchanged", "missing")
    }
    for label in found["missing"]:
        log.warning(f"{label}: no stored answers are to what it asks now; run the campaign")
    if failed:
        raise CellsFailedError("; ".join(f"{model}: {reason}" for model, reason in failed.items()))
    return Rescored(run, **found)


async def _rescore_models(spec: CampaignSpec, models: tuple[PlannedModel, ...], run: str) -> list[Outcome]:
    answered = await asyncio.gather(*(_rescore_model(spec, planned, run) for planned in models))
    judges = [planned for planned in models if planned.model.name in judges_of(spec)]
    verdicts = [await _rescore_verdicts(spec, planned, run) for planned in judges]
    return [cell for outcome in (*answered, *verdicts) for cell in outcome]


async def _rescore_model(spec: CampaignSpec, planned: PlannedModel, run: str) -> list[Outcome]:
    weights = await _weights(planned)
    prepared = await asyncio.gather(*(prepare(spec, planned, weights, benchmark) for benchmark in spec.benchmarks))
    return await _rescore_cells(spec, planned, run, list(prepared), record_model)


async def _rescore_verdicts(spec: CampaignSpec, planned: PlannedModel, run: str) -> list[Outcome]:
    works = await prepare_judging(spec, run, planned, await _weights(planned))
    return await _rescore_cells(spec, planned, run, works, record_verdicts)


async def _rescore_cells(
    spec: CampaignSpec, planned: PlannedModel, run: str, works: list[CellWork], record: Any
) -> list[Outcome]:
    """Score cells; one that fails ends none of the others. ``record`` is the task that writes to the store what was asked for."""
    cells = [work.cell for work in works]
    await record(spec, run, planned, cells)
    records = await asyncio.to_thread(open_store(spec.results).commit_records)
    outcomes = await asyncio.gather(*(_rescore_cell(spec, work, records) for work in works))
    if failures := _failures(outcomes):
        reasons = {cell: reason for each in failures.values() for cell, reason in each.items()}
        await record(spec, run, planned, cells, Failures(reasons, None))
    return list(outcomes)


async def _rescore_cell(spec: CampaignSpec, work: CellWork, records: Mapping[str, Mapping[str, Any]]) -> Outcome:
    if work.complete:
        return Outcome(work, "unchanged")
    donor = find_donor(work.cell, records.values())
    try:
        if donor is None:  # answers of a cell that could not be scored are no samples yet
            done = await score_answered(work, spec, errors_too=True)
            return Outcome(work, "rescored" if done else "missing")
        await score_again(work, donor, spec.results)
    except (StoreError, TransientError):
        raise
    except Exception as error:  # a task's own code raises anything
        return Outcome(work, "failed", cell_reason(work, error))
    log.info(f"{work.label}: scored again from stored samples")
    return Outcome(work, "rescored")


def _failures(outcomes: Iterable[Outcome]) -> dict[str, dict[tuple[str, str], str]]:
    """Return the reasons of failed cells by model and (model, benchmark)."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    for work, kind, reason in outcomes:
        if kind == "failed":
            found.setdefault(work.cell.model, {})[work.cell.model, work.cell.benchmark] = reason
    return found


async def _weights(planned: PlannedModel) -> Path:
    # Without a chat template nothing of the checkpoint's files is needed.
    return (
        await fetch_weights(planned, weights=False) if planned.model.chat_template else Path(planned.checkpoint.source)
    )
