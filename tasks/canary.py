"""The canary set: answered on one engine, and compared when both have."""

from __future__ import annotations

import asyncio

from core.benchmark.benchmark import load_benchmark
from core.log import log
from core.planning.canary import BENCHMARK
from core.storage.open import open_storage
from core.store.runs import write_answers
from engines.bench.bench import Bench
from tasks.steps import RETRYING, step


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
