"""The middle of the pipeline: requests → engine → response shards → scores → committed cell."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from core.errors import EngineDiedError, SteelyardError
from core.plan import PlannedModel
from core.request import Generated, Response
from core.results import open_store
from core.sample import Scoring
from engines.engine import Engine, EngineInfo
from tasks.prepare import CellWork
from tasks.say import say, warn

PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class CellRun:
    """Responses of a cell by request id, and what getting them took in this run (``resumed`` came from shards)."""

    responses: dict[str, Response]
    resumed: int
    seconds: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


def run_cell(engine: Engine, work: CellWork, results: str) -> CellRun:
    """Answer what the store does not hold yet; every response is in a shard before this returns or raises.

    Raises `core.errors.EngineDiedError` where the engine is gone, `core.errors.SteelyardError` where no request could be served.
    """
    store, cell = open_store(results), work.cell
    requests = work.benchmark.requests()
    wanted = {request.id for request in requests}
    kept = store.responses(cell.fingerprint)
    responses = {key: value for key, value in kept.items() if key in wanted and value.error is None}
    todo = [request for request in requests if request.id not in responses]
    label = f"{cell.model} · {cell.benchmark}"
    if responses:
        say(f"{label}: {len(responses)} of {len(requests)} responses were stored by an earlier run")
    fresh: list[Response] = []
    started = told = time.monotonic()
    with store.writer(cell.fingerprint) as writer:
        for response in engine.run(todo):
            writer.add(response)
            fresh.append(response)
            if (now := time.monotonic()) - told >= PROGRESS_SECONDS:
                told = now
                say(f"{label}: {_progress(len(fresh), len(todo), now - started)}")
    seconds = time.monotonic() - started
    if len(fresh) != len(todo):
        raise EngineDiedError(f"{label}: {len(fresh)} responses came back for {len(todo)} requests")
    failed = [response for response in fresh if response.error]
    if failed and len(failed) == len(requests):
        raise SteelyardError(f"{label}: no request could be served; the first said: {failed[0].error}")
    if failed:
        warn(f"{label}: {len(failed)} of {len(requests)} requests failed; the first said: {failed[0].error}")
    responses.update((response.id, response) for response in fresh)
    return CellRun(
        responses=responses,
        resumed=len(requests) - len(todo),
        seconds=seconds,
        prompt_tokens=sum(response.prompt_tokens for response in fresh),
        cached_tokens=sum(response.cached_tokens for response in fresh),
        completion_tokens=sum(r.completion_tokens for r in fresh if isinstance(r, Generated)),
    )


def _progress(done: int, total: int, seconds: float) -> str:
    return f"{done}/{total} requests, {seconds * (total - done) / max(done, 1):.0f} s left"


@task(name="evaluate", task_run_name="evaluate {label}", cache_policy=NO_CACHE)
async def evaluate(engine: Engine, work: CellWork, results: str, label: str) -> quote[CellRun]:
    """Run one benchmark's requests through an open engine."""
    return quote(await asyncio.to_thread(run_cell, engine, work, results))


@task(name="score", task_run_name="score {label}", cache_policy=NO_CACHE)
async def score(work: CellWork, run: CellRun, label: str) -> quote[Scoring]:
    """Turn responses into samples and scores."""
    return quote(await asyncio.to_thread(work.benchmark.score, run.responses))


@task(name="store", task_run_name="store {label}", cache_policy=NO_CACHE, retries=3, retry_delay_seconds=[2, 10, 30])
async def store(work: CellWork, scoring: Scoring, metadata: dict[str, Any], results: str, label: str) -> None:
    """Commit the cell: samples, scores, then the record that makes it count."""
    await asyncio.to_thread(open_store(results).commit, work.cell, scoring, metadata)
    head = scoring.headline
    spread = "" if head.stderr is None else f" ± {head.stderr:.4f}"
    say(f"{label}: {head.metric} {head.value:.4f}{spread} over {head.docs} docs")


def cell_metadata(planned: PlannedModel, info: EngineInfo, run: CellRun) -> dict[str, Any]:
    """Facts of how a cell was computed, for its commit record. JSON values."""
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
        "trust_remote_code": planned.model.trust_remote_code,
    }
