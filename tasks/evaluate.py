"""The middle of the pipeline: requests → engine → response shards → scores → committed cell, also from what is stored already."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from core.benchmark.benchmark import load_benchmark
from core.campaign import CampaignSpec
from core.cell_work import CellWork
from core.compare.adaptive import of_docs
from core.log import log, warn_once
from core.monitor.progress import Progress
from core.monitor.progress import tell as tell_listeners
from core.planning.canary import BENCHMARK
from core.request import doc_of
from core.results import open_store
from core.sample import Scoring
from core.storage.open import open_storage
from core.storage.retry import patiently_in_thread
from core.store.quality import warn_of_faults
from core.store.runs import write_answers
from core.upkeep.answers import score_stored
from core.upkeep.recompute import rescore
from engines.bench.answering import CellRun, commit, run_cell
from engines.bench.bench import Bench
from tasks.artifacts import show_while
from tasks.steps import RETRYING, step


@step("evaluate", "{work.label}")
async def evaluate_cell(bench: Bench, work: CellWork) -> CellRun:
    """Run one benchmark's requests through an open engine. Cancelled, it ends when what is answered is stored."""
    latest: list[Progress] = []

    def report(progress: Progress) -> None:
        latest[:] = [progress]
        tell_listeners(progress)

    on = bench.answering
    working = asyncio.ensure_future(asyncio.to_thread(run_cell, on, work, report))
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
        for warning in scoring.warnings:
            warn_once(f"benchmark {work.cell.benchmark!r}: {warning}")
        scoring = of_docs(scoring, map(doc_of, run.responses)) if run.adaptive else scoring
    warn_of_faults(work.label, scoring)
    return scoring


@step("store", "{work.label}")
async def store(bench: Bench, work: CellWork, scoring: Scoring, run: CellRun) -> None:
    """Commit the cell: samples, scores, then the record that makes it count. A store that does not answer is waited for."""
    with bench.job.timeline.span("store", work.cell.benchmark):
        await commit(bench.answering, work, scoring, bench.facts_of(run, scoring))
    head = scoring.headline
    spread = "" if head.stderr is None else f" ± {head.stderr:.4f}"
    remark = f"; {scoring.remark}" if scoring.remark else ""
    log.info(f"{work.label}: {head.metric} {head.value:.4f}{spread} over {head.docs} docs{remark}")


@step("score again", "{work.label}", **RETRYING)
async def score_again(work: CellWork, donor: Mapping[str, Any], results: str) -> bool:
    """Score the stored samples of ``donor``'s cell as ``work``'s, and commit that. Returns whether the record is this call's."""
    return await asyncio.to_thread(rescore, open_store(results), work, donor)


@step("score stored answers", "{work.label}")
async def score_answered(work: CellWork, spec: CampaignSpec, *, errors_too: bool = False) -> bool:
    """Score a cell by the answers that the store holds to what it asks, and commit it; False where they are not all there.

    With ``errors_too`` a request that failed stays so. A store that does not answer is waited for.
    """
    store = open_store(spec.results)
    scoring = partial(score_stored, store, work, errors_too=errors_too)
    if done := await patiently_in_thread(scoring, spec.policy.store_patience_seconds):
        log.info(f"{work.label}: scored from stored answers, without an engine")
    return done


@step("answer canary set", "{bench.placed.placement.engine}", **RETRYING)
async def answer_canary(bench: Bench) -> None:
    """Answer the canary set on an open engine and store the responses under the campaign's run."""
    job, engine = bench.job, bench.placed.placement.engine

    def answer() -> None:
        benchmark = load_benchmark(BENCHMARK, chat=None, seed=job.spec.seed)
        with job.timeline.span("generate", BENCHMARK.name):
            responses = list(bench.engine.run(benchmark.requests()))
        write_answers(open_storage(job.spec.results), job.spec.name, job.run, engine, responses)

    await asyncio.to_thread(answer)
    log.info(f"canary set answered {engine}")
