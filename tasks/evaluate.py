"""The middle of the pipeline: requests → engine → response shards → scores → committed cell."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from core.cell_work import CellWork
from core.compare.adaptive import of_docs
from core.log import say
from core.model.placement import PlannedModel
from core.monitor.progress import Progress
from core.monitor.progress import tell as tell_listeners
from core.request import doc_of
from core.results import open_store
from core.sample import Scoring
from core.storage.retry import patiently_in_thread
from core.store.quality import facts_of
from engines.bench.answering import CellRun, run_cell
from engines.bench.bench import Bench
from engines.engine import EngineInfo
from tasks.artifacts import show_while


@task(name="evaluate", task_run_name="evaluate {label}", cache_policy=NO_CACHE)
async def evaluate(bench: Bench, work: CellWork, label: str) -> quote[CellRun]:
    """Run one benchmark's requests through an open engine. Cancelled, it ends when what is answered is stored."""
    latest: list[Progress] = []

    def tell(progress: Progress) -> None:
        latest[:] = [progress]
        tell_listeners(progress)

    working = asyncio.ensure_future(asyncio.to_thread(run_cell, bench, work, tell))
    showing = asyncio.ensure_future(show_while(working, lambda: latest[0] if latest else None, label))
    try:
        return quote(await asyncio.shield(working))
    except asyncio.CancelledError:
        bench.control.cancel()
        if bench.spool is not None:
            bench.spool.hurry()
        await asyncio.wait([working])
        working.exception()  # whatever it ended with, the cancellation goes before
        raise
    finally:
        await asyncio.wait([showing])


@task(name="score", task_run_name="score {label}", cache_policy=NO_CACHE)
async def score(work: CellWork, run: CellRun, label: str) -> quote[Scoring]:
    """Turn responses into samples and scores."""
    scoring = await asyncio.to_thread(work.benchmark.score, run.responses)
    return quote(of_docs(scoring, map(doc_of, run.responses)) if run.adaptive else scoring)


@task(name="store", task_run_name="store {label}", cache_policy=NO_CACHE)
async def store(work: CellWork, scoring: Scoring, metadata: dict[str, Any], bench: Bench, label: str) -> None:
    """Commit the cell: samples, scores, then the record that makes it count. A store that does not answer is waited for."""
    to_commit = {**metadata, "cluster": work.cluster}
    results = open_store(bench.results)
    await patiently_in_thread(lambda: results.commit(work.cell, scoring, to_commit), bench.patience)
    if bench.spool is not None:
        await asyncio.to_thread(bench.spool.forget, work.cell.fingerprint)
    head = scoring.headline
    spread = "" if head.stderr is None else f" ± {head.stderr:.4f}"
    say(f"{label}: {head.metric} {head.value:.4f}{spread} over {head.docs} docs")


def cell_metadata(
    planned: PlannedModel, info: EngineInfo, run: CellRun, scoring: Scoring, bench: Bench
) -> dict[str, Any]:
    """Facts of how a cell was computed, for its commit record. JSON values."""
    faults = [] if bench.recovery is None else bench.recovery.record()
    return {
        "engine": info.engine,
        "placement": asdict(planned.placement),
        "vllm_version": info.vllm_version,
        "load_seconds": info.load_seconds,
        "seconds": run.seconds,
        "resumed": run.resumed,
        "prompt_tokens": run.prompt_tokens,
        "cached_tokens": run.cached_tokens,
        "completion_tokens": run.completion_tokens,
        "monitor": run.monitor,
        **facts_of(scoring),
        "trust_remote_code": planned.model.trust_remote_code,
        **({"adaptive": run.adaptive} if run.adaptive else {}),
        **({"faults": faults} if faults else {}),
        **({"estimate": asdict(bench.expected)} if bench.expected else {}),
    }
