"""Subflow of one model: route → prepare → hold GPUs → open engine → evaluate, score and store each benchmark."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

from prefect import flow
from prefect.utilities.annotations import quote

from core.campaign import CampaignSpec
from core.fleet import resolve_fleet
from core.plan import PlannedModel
from engines.engine import Engine, EngineInfo
from tasks.evaluate import cell_metadata, evaluate, score, store
from tasks.prepare import CellWork, fetch, prepare
from tasks.provision import build_engine, open_engine
from tasks.publish import record_model
from tasks.route import route
from tasks.say import say
from tasks.slots import GpuBudget

BUDGET: ContextVar[GpuBudget] = ContextVar("gpu_budget")


@flow(name="evaluate-model", flow_run_name="{model}", persist_result=False)
async def evaluate_model(spec: CampaignSpec, model: str, run: str) -> None:
    """Evaluate the model named ``model`` on every benchmark of ``spec``, as part of the campaign's run ``run``.

    What it finds goes to the results store. Raises the first failure after everything that could be computed is stored.
    """
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
    budget = BUDGET.get(None) or GpuBudget(fleet.nodes * fleet.gpus)
    async with budget.hold(planned.placement.gpus) as devices:
        engine, keep = build_engine(spec, planned, fleet, weights, devices), False
        try:
            info = await open_engine(quote(engine), model)
            await evaluate_cells(engine, info, planned, todo, spec.results)
            keep = True
        finally:
            await asyncio.shield(asyncio.to_thread(engine.close, keep=keep))


async def evaluate_cells(
    engine: Engine, info: EngineInfo, planned: PlannedModel, works: list[CellWork], results: str
) -> None:
    """Run all benchmarks of a model at once on its engine; each is stored as soon as it is whole.

    Raises the first benchmark's failure after the others have ended.
    """

    async def one(work: CellWork) -> None:
        label = f"{planned.model.name} · {work.cell.benchmark}"
        run = await evaluate(quote(engine), quote(work), results, label)
        scoring = await score(quote(work), run, label)
        await store(quote(work), scoring, cell_metadata(planned, info, run.unquote()), results, label)

    ended = await asyncio.gather(*(one(work) for work in works), return_exceptions=True)
    for outcome in ended:
        if isinstance(outcome, BaseException):
            raise outcome
