"""Subflow of one model: route → prepare → hold GPUs → open engine → evaluate, score and store each benchmark."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.context import TagsContext
from prefect.states import State
from prefect.utilities.annotations import quote

from core.campaign import CampaignSpec, FleetSpec
from core.fleet import resolve_fleet
from core.plan import PlannedModel
from engines.engine import EngineInfo
from flows.heed import run_heeding
from tasks.canary import answer_canary
from tasks.control import Control
from tasks.evaluate import Bench, cell_metadata, score, store
from tasks.evaluate import evaluate as evaluate_benchmark
from tasks.judge import prepare_judging
from tasks.monitor import monitored
from tasks.prepare import CellWork, fetch, prepare
from tasks.provision import build_engine, engine_config, open_engine, provisioned
from tasks.publish import record_model, record_verdicts
from tasks.replicas import as_used, replicated, spread
from tasks.route import route
from tasks.say import say
from tasks.slots import hold_devices

Part = Literal["benchmarks", "judge", "canary"]


@flow(name="evaluate-model", persist_result=False)
async def evaluate_model(spec: CampaignSpec, model: str, run: str, part: Part = "benchmarks") -> State | None:
    """Evaluate the model named ``model`` on every benchmark of ``spec``, as part of the campaign's run ``run``.

    As "judge" it scores instead what the run's models have answered where a benchmark names it as judge; as "canary" it answers the
    canary set, by which engines are compared. What it finds goes to the results store. Raises the first failure after everything
    that could be computed is stored; ends Cancelled where people ask for that.

    Args:
        spec: The campaign.
        model: Name of the campaign's model to evaluate.
        run: The campaign's run in the results store.
        part: What to do of the campaign: its benchmarks, judging, or the canary set.
    """
    control = Control()
    # A task with tags asks the server for a slot of each before it runs, which costs seconds where SQLite is busy.
    with TagsContext(current_tags=set()):
        return await run_heeding(lambda: evaluate(spec, model, run, control, part), control, model)


async def evaluate(spec: CampaignSpec, model: str, run: str, control: Control, part: Part = "benchmarks") -> None:
    """Do what is left to do for one model."""
    fleet = resolve_fleet(spec.fleet)
    chosen = next(entry for entry in spec.models if entry.name == model)
    planned = await route(spec, chosen, fleet)
    weights = await fetch(planned)
    if part == "canary":
        async with bench(spec, planned, fleet, weights, run, control, keep=False) as on:
            await open_engine(quote(on.engine), model)
            await answer_canary(quote(on), spec, run, planned.placement.engine)
        return
    if part == "judge":
        works = (await prepare_judging(spec, run, planned, weights)).unquote()
        await record_verdicts(spec, run, planned, [work.cell for work in works])
    else:
        prepared = await asyncio.gather(*(prepare(spec, planned, weights, benchmark) for benchmark in spec.benchmarks))
        works = [work.unquote() for work in prepared]
        await record_model(spec, run, planned, [work.cell for work in works])
    for work in works:
        if work.complete:
            say(f"{work.cell.model} · {work.cell.benchmark}: complete in the store, not computed again")
    todo = [work for work in works if not work.complete]
    if not todo:
        return
    planned = await spread(spec, planned, fleet, todo)
    async with bench(spec, planned, fleet, weights, run, control) as on:
        info = await open_engine(quote(on.engine), model)
        await evaluate_cells(on, info, planned, todo)


@asynccontextmanager
async def bench(
    spec: CampaignSpec,
    planned: PlannedModel,
    fleet: FleetSpec,
    weights: Path,
    run: str,
    control: Control,
    *,
    keep: bool = True,
) -> AsyncIterator[Bench]:
    """Hold the placement's devices, its Ray cluster and an engine or replicas of it on them, not yet open, all watched.

    ``keep`` leaves a service loaded for the next; what a failure leaves behind never is.
    """
    config = engine_config(spec, planned, fleet, weights)
    async with (
        hold_devices(spec, planned, fleet, config) as held,
        provisioned(spec, planned, fleet, config, held, run) as cluster,
        replicated(spec, planned, fleet, held, lambda held: build_engine(spec, planned, config, held, cluster)) as (
            engine,
            holder,
        ),
    ):
        sound = False
        async with monitored(spec, fleet, planned.model.name, holder, engine, run) as monitor:
            try:
                yield Bench(engine, spec.results, control, monitor)
                sound = True
            finally:
                await asyncio.shield(asyncio.to_thread(engine.close, keep=keep and sound))


async def evaluate_cells(on: Bench, info: EngineInfo, planned: PlannedModel, works: list[CellWork]) -> None:
    """Run all benchmarks of a model at once on its engine; each is stored as soon as it is whole.

    Raises the first benchmark's failure after the others have ended.
    """

    async def one(work: CellWork) -> None:
        label = f"{work.cell.model} · {work.cell.benchmark}"
        run = await evaluate_benchmark(quote(on), quote(work), label)
        scoring = await score(quote(work), run, label)
        metadata = cell_metadata(as_used(planned, on.engine), info, run.unquote(), scoring.unquote())
        await store(quote(work), scoring, metadata, on.results, label)

    ended = await asyncio.gather(*(one(work) for work in works), return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException):
            raise outcome
