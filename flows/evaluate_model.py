"""Subflow of one model: route → prepare → hold GPUs → open engine → evaluate, score and store each benchmark."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from prefect import flow
from prefect.states import State
from prefect.utilities.annotations import quote

from core.campaign import CampaignSpec, FleetSpec
from core.fleet import resolve_fleet
from core.plan import PlannedModel
from engines.engine import EngineInfo
from flows.heed import run_heeding
from tasks.control import Control
from tasks.evaluate import Bench, cell_metadata, score, store
from tasks.evaluate import evaluate as evaluate_benchmark
from tasks.monitor import monitored
from tasks.prepare import CellWork, fetch, prepare
from tasks.provision import build_engine, engine_config, open_engine, provisioned
from tasks.publish import record_model
from tasks.route import route
from tasks.say import say
from tasks.slots import hold_devices


@flow(name="evaluate-model", persist_result=False)
async def evaluate_model(spec: CampaignSpec, model: str, run: str) -> State | None:
    """Evaluate the model named ``model`` on every benchmark of ``spec``, as part of the campaign's run ``run``.

    What it finds goes to the results store. Raises the first failure after everything that could be computed is stored; ends
    Cancelled where people ask for that.

    Args:
        spec: The campaign.
        model: Name of the campaign's model to evaluate.
        run: The campaign's run in the results store.
    """
    control = Control()
    return await run_heeding(lambda: evaluate(spec, model, run, control), control, model)


async def evaluate(spec: CampaignSpec, model: str, run: str, control: Control) -> None:
    """Do what is left to do for one model."""
    fleet = resolve_fleet(spec.fleet)
    chosen = next(entry for entry in spec.models if entry.name == model)
    planned = await route(spec, chosen, fleet)
    weights = await fetch(planned)
    prepared = await asyncio.gather(*(prepare(spec, planned, weights, benchmark) for benchmark in spec.benchmarks))
    works = [work.unquote() for work in prepared]
    await record_model(spec, run, planned, [work.cell for work in works])
    for work in works:
        if work.complete:
            say(f"{model} · {work.cell.benchmark}: complete in the store, not computed again")
    todo = [work for work in works if not work.complete]
    if not todo:
        return
    async with bench(spec, planned, fleet, weights, run, control) as on:
        info = await open_engine(quote(on.engine), model)
        await evaluate_cells(on, info, planned, todo)


@asynccontextmanager
async def bench(
    spec: CampaignSpec, planned: PlannedModel, fleet: FleetSpec, weights: Path, run: str, control: Control
) -> AsyncIterator[Bench]:
    """Hold the placement's devices, its Ray cluster and an engine on them, not yet open, all watched.

    What a failure leaves behind is not kept loaded.
    """
    config = engine_config(spec, planned, fleet, weights)
    async with (
        hold_devices(spec, planned, fleet, config) as held,
        provisioned(spec, planned, fleet, config, held, run) as cluster,
    ):
        engine, keep = build_engine(spec, planned, config, held, cluster), False
        async with monitored(spec, fleet, planned.model.name, held, engine, run) as monitor:
            try:
                yield Bench(engine, spec.results, control, monitor)
                keep = True
            finally:
                await asyncio.shield(asyncio.to_thread(engine.close, keep=keep))


async def evaluate_cells(on: Bench, info: EngineInfo, planned: PlannedModel, works: list[CellWork]) -> None:
    """Run all benchmarks of a model at once on its engine; each is stored as soon as it is whole.

    Raises the first benchmark's failure after the others have ended.
    """

    async def one(work: CellWork) -> None:
        label = f"{planned.model.name} · {work.cell.benchmark}"
        run = await evaluate_benchmark(quote(on), quote(work), label)
        scoring = await score(quote(work), run, label)
        await store(quote(work), scoring, cell_metadata(planned, info, run.unquote()), on.results, label)

    ended = await asyncio.gather(*(one(work) for work in works), return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException):
            raise outcome
