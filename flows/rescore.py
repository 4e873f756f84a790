"""Scores of a campaign made again from its stored samples, where a metric, a filter or a target has changed since."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from core.benchmark.cell import find_donor
from core.benchmark.prepare import judges_of
from core.campaign import CampaignSpec
from core.cell_work import CellWork
from core.log import log
from core.model.placement import PlannedModel
from core.results import new_run_id, open_store
from flows.interrupt import run_interruptible
from flows.spec_flow import spec_flow
from tasks.evaluate import score_again
from tasks.plan import check
from tasks.prepare import fetch_weights, prepare, prepare_judging
from tasks.publish import publish, record_model, record_verdicts


@dataclass(frozen=True)
class Rescored:
    """Labels of a campaign's cells: scored again now, unchanged since they were stored, and without samples to score."""

    run: str
    rescored: tuple[str, ...]
    unchanged: tuple[str, ...]
    missing: tuple[str, ...]


@spec_flow(flow_run_name="rescore {spec.name}", persist_result=False)
def rescore(spec: CampaignSpec) -> Rescored:
    """Score a campaign's stored samples by its benchmarks as they are now; a mapping or its file's path will do too.

    Starts no engine. Old scores stay under their fingerprints; the leaderboard shows the new ones. Cells whose requests have
    changed, or that were never run, are listed and left to `steelyard.campaign`. Raises `core.errors.UserError` for bad input.

    Args:
        spec: Models, benchmarks, and where results are.
    """
    plan = check(spec)
    run, started = new_run_id(), time.monotonic()
    outcomes = run_interruptible(lambda: _rescore_models(spec, plan.models, run))
    publish(spec, run, {}, time.monotonic() - started)
    cells = [cell for outcome in outcomes for cell in outcome]
    found = {
        kind: tuple(label for label, what in cells if what == kind) for kind in ("rescored", "unchanged", "missing")
    }
    for label in found["missing"]:
        log.warning(f"{label}: no stored samples answer what it asks now; run the campaign")
    return Rescored(run, **found)


async def _rescore_models(
    spec: CampaignSpec, models: tuple[PlannedModel, ...], run: str
) -> list[list[tuple[str, str]]]:
    answered = await asyncio.gather(*(_rescore_model(spec, planned, run) for planned in models))
    judges = [planned for planned in models if planned.model.name in judges_of(spec)]
    return answered + [await _rescore_verdicts(spec, planned, run) for planned in judges]


async def _rescore_model(spec: CampaignSpec, planned: PlannedModel, run: str) -> list[tuple[str, str]]:
    weights = await _weights(planned)
    prepared = await asyncio.gather(*(prepare(spec, planned, weights, benchmark) for benchmark in spec.benchmarks))
    works = list(prepared)
    await record_model(spec, run, planned, [work.cell for work in works])
    return await _rescore_cells(spec, works)


async def _rescore_verdicts(spec: CampaignSpec, planned: PlannedModel, run: str) -> list[tuple[str, str]]:
    works = await prepare_judging(spec, run, planned, await _weights(planned))
    await record_verdicts(spec, run, planned, [work.cell for work in works])
    return await _rescore_cells(spec, works)


async def _rescore_cells(spec: CampaignSpec, works: list[CellWork]) -> list[tuple[str, str]]:
    records = await asyncio.to_thread(open_store(spec.results).commit_records)

    async def one(work: CellWork) -> tuple[str, str]:
        if work.complete:
            return work.label, "unchanged"
        donor = find_donor(work.cell, records.values())
        if donor is None:
            return work.label, "missing"
        await score_again(work, donor, spec.results)
        log.info(f"{work.label}: scored again from stored samples")
        return work.label, "rescored"

    return await asyncio.gather(*(one(work) for work in works))


async def _weights(planned: PlannedModel) -> Path:
    # Without a chat template nothing of the checkpoint's files is needed.
    return (
        await fetch_weights(planned, weights=False) if planned.model.chat_template else Path(planned.checkpoint.source)
    )
