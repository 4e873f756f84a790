"""Preparation before a GPU is held: weights on local disk, docs loaded, prompts built, cells looked up."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from core.benchmark.prepare import judgings, prepare_cell
from core.campaign import BenchmarkSpec, CampaignSpec
from core.cell_work import CellWork
from core.model.placement import PlannedModel, loads_from_here
from core.model.weights import fetch_checkpoint
from core.results import open_store
from core.storage.retry import patiently_in_thread
from core.upkeep.answers import is_answered
from engines.bench.job import Job
from tasks.steps import RETRYING, step

# Preparing is Python's work, so all at once would end all at once: in turn, the model that asked first can start.
AT_ONCE = 4
_IN_TURN = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="steelyard-prepare")


async def fetch(job: Job) -> None:
    """Put the job's checkpoint on local disk; without its weights where its engine does not read them from here."""
    with job.timeline.span("prepare"):
        job.weights = await fetch_weights(job.placed, weights=loads_from_here(job.placed, job.fleet))


@step("fetch weights", "of {planned.model.name}", **RETRYING)
async def fetch_weights(planned: PlannedModel, *, weights: bool) -> Path:
    """Put a checkpoint on local disk, with or without its weights."""
    return await asyncio.to_thread(fetch_checkpoint, planned.checkpoint, weights=weights)


@step("prepare", "{benchmark.name}")
async def prepare(spec: CampaignSpec, planned: PlannedModel, weights: Path, benchmark: BenchmarkSpec) -> CellWork:
    """Load one benchmark for one model and look its cell up in the store."""
    context = contextvars.copy_context()
    preparing = partial(context.run, prepare_cell, spec, planned, weights, benchmark)
    work: CellWork = await asyncio.get_running_loop().run_in_executor(_IN_TURN, preparing)
    return await patiently_in_thread(lambda: _looked_up(spec.results, work), spec.policy.store_patience_seconds)


@step("prepare judging", "by {planned.model.name}")
async def prepare_judging(spec: CampaignSpec, run: str, planned: PlannedModel, weights: Path) -> list[CellWork]:
    """Find what ``planned``'s model judges of the campaign's run ``run``; a cell's ``model`` is the one that answered."""

    def found() -> list[CellWork]:
        return [_looked_up(spec.results, work) for work in judgings(spec, run, planned, weights)]

    return await patiently_in_thread(found, spec.policy.store_patience_seconds)


def _looked_up(results: str, work: CellWork) -> CellWork:
    """Return a cell with what the store has of it."""
    store = open_store(results)
    complete = work.complete or store.is_complete(work.cell.fingerprint)
    return replace(work, complete=complete, answered=not complete and is_answered(store, work))
