"""Preparation before a GPU is held: weights on local disk, docs loaded, prompts built, cells looked up."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from core.benchmark.cell import make_cell
from core.benchmark.find import cluster_field
from core.benchmark.prepare import chat_of, prepare_cell
from core.campaign import BenchmarkSpec, CampaignSpec, benchmark_label
from core.cell_work import CellWork
from core.log import log
from core.model.placement import PlannedModel, loads_from_here
from core.model.weights import fetch_checkpoint
from core.results import Store, open_store
from core.scoring.judge import Judging
from core.scoring.judge_spec import JudgeSpec
from core.storage.retry import patiently_in_thread
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
    store = open_store(spec.results)
    complete = await patiently_in_thread(
        lambda: store.is_complete(work.cell.fingerprint), spec.policy.store_patience_seconds
    )
    return replace(work, complete=complete)


@step("prepare judging", "by {planned.model.name}")
async def prepare_judging(spec: CampaignSpec, run: str, planned: PlannedModel, weights: Path) -> list[CellWork]:
    """Find what ``planned``'s model judges of the campaign's run ``run``; a cell's ``model`` is the one that answered."""
    return await patiently_in_thread(lambda: judgings(spec, run, planned, weights), spec.policy.store_patience_seconds)


def judgings(spec: CampaignSpec, run: str, planned: PlannedModel, weights: Path) -> list[CellWork]:
    """See `prepare_judging`. Answers that are not complete in the store are named and left out."""
    store, judge = open_store(spec.results), planned.model
    chat = chat_of(judge, weights)
    works = []
    for judge_spec, benchmark, model, fingerprint in _answered(spec, store, run, judge.name):
        if not store.is_complete(fingerprint):
            log.warning(f"{model} · {benchmark_label(benchmark)}: not judged, it is not complete")
            continue
        judging = Judging(
            spec=judge_spec,
            benchmark=benchmark_label(benchmark),
            samples=tuple(store.cell_samples(fingerprint)),
            render_chat=chat.render if chat else None,
            system_prompt=judge.system_prompt,
            think_end_token=judge.think_end_token,
        )
        cell = make_cell(judge, planned.checkpoint, planned.placement, judging.label, judging.settings)
        complete = store.is_complete(cell.fingerprint)
        cell = replace(cell, model=model)
        works.append(CellWork(cell, judging, complete, benchmark.timeout_seconds, cluster_field(benchmark.name)))
    return works


def judges_of(spec: CampaignSpec) -> list[str]:
    """Names of the models that judge, in the campaign's order."""
    asked = {benchmark.judge.model for benchmark in spec.benchmarks if benchmark.judge}
    return [model.name for model in spec.models if model.name in asked]


def _answered(
    spec: CampaignSpec, store: Store, run: str, judge: str
) -> Iterator[tuple[JudgeSpec, BenchmarkSpec, str, str]]:
    """(judge, benchmark, model, fingerprint) of every cell of the run that ``judge`` scores."""
    (manifest,) = (each for each in store.campaigns(spec.name) if each["run"] == run)
    cells = {entry["model"]: entry["cells"] for entry in manifest["models"] if "judge" not in entry}
    for benchmark in spec.benchmarks:
        if benchmark.judge and benchmark.judge.model == judge:
            for model in spec.models:
                if fingerprint := cells.get(model.name, {}).get(benchmark_label(benchmark)):
                    yield benchmark.judge, benchmark, model.name, fingerprint
