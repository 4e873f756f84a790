"""The canary set: answered on one engine, and compared when both have."""

from __future__ import annotations

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE

from core.benchmark.benchmark import load_benchmark
from core.campaign import CampaignSpec
from core.log import say
from core.planning.canary import BENCHMARK
from core.storage.open import open_storage
from core.store.canary import write_answers
from engines.bench.bench import Bench
from tasks.retry import RETRYING


@task(name="answer canary set", task_run_name="answer canary set {engine}", cache_policy=NO_CACHE, **RETRYING)
async def answer_canary(on: Bench, spec: CampaignSpec, run: str, engine: str) -> None:
    """Answer the canary set on an open engine and store the responses under the campaign's run."""

    def answer() -> None:
        benchmark = load_benchmark(BENCHMARK, chat=None, seed=spec.seed)
        with on.timeline.span("generate", BENCHMARK.name):
            responses = list(on.engine.run(benchmark.requests()))
        write_answers(open_storage(spec.results), spec.name, run, engine, responses)

    await asyncio.to_thread(answer)
    say(f"canary set answered {engine}")
