"""The middle of the pipeline: requests → engine → response shards → scores → committed cell."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from core.cell_work import CellWork
from core.compare.adaptive import of_docs
from core.log import log
from core.monitor.progress import Progress
from core.monitor.progress import tell as tell_listeners
from core.request import doc_of
from core.results import open_store
from core.sample import Scoring
from core.storage.retry import patiently_in_thread
from core.store.quality import facts_of
from engines.bench.answering import Answering, CellRun, run_cell
from engines.bench.bench import Bench
from engines.bench.growth import as_used
from tasks.artifacts import show_while
from tasks.steps import step


@step("evaluate", "{work.label}")
async def evaluate_cell(bench: Bench, work: CellWork) -> CellRun:
    """Run one benchmark's requests through an open engine. Cancelled, it ends when what is answered is stored."""
    latest: list[Progress] = []

    def tell(progress: Progress) -> None:
        latest[:] = [progress]
        tell_listeners(progress)

    on = bench.answering
    working = asyncio.ensure_future(asyncio.to_thread(run_cell, on, work, tell))
    showing = asyncio.ensure_future(show_while(working, lambda: latest[0] if latest else None, work.label))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        on.control.cancel()
        if on.spool is not None:
            on.spool.hurry()
        await asyncio.wait([working])
        working.exception()  # whatever it ended with, the cancellation goes before
        raise
    finally:
        await asyncio.wait([showing])


@step("score", "{work.label}")
async def score(bench: Bench, work: CellWork, run: CellRun) -> Scoring:
    """Turn responses into samples and scores."""
    with bench.job.timeline.span("score", work.cell.benchmark):
        scoring = await asyncio.to_thread(work.benchmark.score, run.responses)
        return of_docs(scoring, map(doc_of, run.responses)) if run.adaptive else scoring


@step("store", "{work.label}")
async def store(bench: Bench, work: CellWork, scoring: Scoring, run: CellRun) -> None:
    """Commit the cell: samples, scores, then the record that makes it count. A store that does not answer is waited for."""
    with bench.job.timeline.span("store", work.cell.benchmark):
        await commit(bench.answering, work, scoring, cell_metadata(bench, run, scoring))
    head = scoring.headline
    spread = "" if head.stderr is None else f" ± {head.stderr:.4f}"
    log.info(f"{work.label}: {head.metric} {head.value:.4f}{spread} over {head.docs} docs")


async def commit(on: Answering, work: CellWork, scoring: Scoring, metadata: dict[str, Any]) -> None:
    """Commit a cell, and what groups its docs; the spool then no longer needs its answers."""
    results, metadata = open_store(on.results), {**metadata, "cluster": work.cluster}
    await patiently_in_thread(lambda: results.commit(work.cell, scoring, metadata), on.patience)
    if on.spool is not None:
        await asyncio.to_thread(on.spool.forget, work.cell.fingerprint)


def cell_metadata(bench: Bench, run: CellRun, scoring: Scoring) -> dict[str, Any]:
    """Facts of how a cell was computed, for its commit record. JSON values."""
    job, info, placed = bench.job, bench.info, as_used(bench.placed, bench.engine)
    faults = job.recovery.record()
    return {
        "engine": info.engine,
        "placement": asdict(placed.placement),
        "vllm_version": info.vllm_version,
        "load_seconds": info.load_seconds,
        "seconds": run.seconds,
        "resumed": run.resumed,
        "prompt_tokens": run.prompt_tokens,
        "cached_tokens": run.cached_tokens,
        "completion_tokens": run.completion_tokens,
        "monitor": run.monitor,
        **facts_of(scoring),
        "trust_remote_code": placed.model.trust_remote_code,
        **({"adaptive": run.adaptive} if run.adaptive else {}),
        **({"faults": faults} if faults else {}),
        **({"estimate": asdict(job.expected)} if job.expected else {}),
    }
