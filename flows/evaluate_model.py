"""Subflow of one model: route → prepare → hold GPUs → open engine → evaluate, score and store each benchmark.

The steps overlap. A process imports vLLM while benchmarks are prepared and devices waited for; the engine loads as soon as there is
something to answer, while other benchmarks are still being prepared; what is answered is scored and stored while the engine
answers the rest, and after it has given its devices back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace

from prefect import flow
from prefect.context import TagsContext
from prefect.states import State
from prefect.utilities.annotations import quote

from core.campaign import CampaignSpec
from core.cell_work import CellWork
from core.errors import SteelyardError
from core.model.eager import compiled_or_not
from core.model.fleet import resolve_fleet
from core.model.placement import PlannedModel, loads_from_here
from core.planning.cost.expected import Expected
from engines.bench.answering import CellRun
from engines.bench.bench import Bench, ModelRun, build_engine, engine_config
from engines.bench.growth import as_used, replicated, spread
from engines.bench.monitoring import monitored
from engines.bench.recovery import Recovery, recovering, standing
from engines.bench.slot import Build
from engines.bench.waiting import hold_devices, queued
from engines.control import Control
from engines.engine import Engine, EngineConfig, EngineInfo
from engines.host.slots import Held
from engines.process.lightweight import warming
from flows.cells import (
    Cells,
    Part,
    Preparation,
    all_ended,
    failure_of,
    in_full,
    known,
    preparing,
    raise_first,
    record,
    work_is_known,
)
from flows.holding import leasing, recorded, spooling
from flows.interrupt import run_heeding
from tasks.artifacts import show_faults
from tasks.canary import answer_canary
from tasks.evaluate import cell_metadata, score, store
from tasks.evaluate import evaluate as evaluate_benchmark
from tasks.plan import route
from tasks.prepare import fetch
from tasks.provision import open_engine, provisioned

WARM_SECONDS = 2.0  # benchmarks that take longer to prepare are usually not complete
IMPORT_SECONDS = 8.0  # until the process that is to load has vLLM imported; meanwhile more becomes known of the work


@flow(name="evaluate-model", persist_result=False)
async def evaluate_model(
    spec: CampaignSpec, model: str, run: str, part: Part = "benchmarks", expected: Expected | None = None
) -> State | None:
    """Evaluate the model named ``model`` on every benchmark of ``spec``, as part of the campaign's run ``run``.

    As "judge" it scores instead what the run's models have answered where a benchmark names it as judge; as "canary" it answers the
    canary set, by which engines are compared. What it finds goes to the results store. Raises the first failure after everything
    that could be computed is stored; ends Cancelled where people ask for that.

    Args:
        spec: The campaign.
        model: Name of the campaign's model to evaluate.
        run: The campaign's run in the results store.
        part: What to do of the campaign: its benchmarks, judging, or the canary set.
        expected: What the part is expected to take; not known when left out.
    """
    control = Control()
    # A task with tags asks the server for a slot of each before it runs, which costs seconds where SQLite is busy.
    with TagsContext(current_tags=set()):
        return await run_heeding(lambda: evaluate(spec, model, run, control, part, expected), control, model)


async def evaluate(
    spec: CampaignSpec,
    model: str,
    run: str,
    control: Control,
    part: Part = "benchmarks",
    expected: Expected | None = None,
) -> None:
    """Do what is left to do for one model."""
    fleet = resolve_fleet(spec.fleet)
    chosen = next(entry for entry in spec.models if entry.name == model)
    planned = await route(spec, chosen, fleet)
    async with (
        recorded(spec, run, planned, part, expected) as timeline,
        warming(planned, fleet) as claim,
        AsyncExitStack() as stack,
    ):
        with timeline.span("prepare"):
            weights = await fetch(planned, weights=loads_from_here(planned, fleet))
        recovery = Recovery(spec, planned, fleet)
        place = stack.enter_context(queued(spec, planned, fleet, None if expected is None else expected.seconds))
        ours = ModelRun(spec, fleet, weights, run, control, timeline, claim, recovery, place, expected)
        if part == "canary":
            claim.begin()
            async with faults_shown(recovery), bench(ours, planned, keep=False) as (on, _):
                await answer_canary(quote(on), spec, run, planned.placement.engine)
            return
        async with (
            leasing(spec, run, model) as leases,
            spooling(spec, run, model) as spool,
            preparing(spec, run, planned, weights, part, timeline) as preparations,
        ):
            warm_later = asyncio.get_running_loop().call_later(WARM_SECONDS, claim.begin)
            await work_is_known(preparations)
            warm_later.cancel()
            cells = Cells(preparations, leases)
            finishing = [asyncio.create_task(record(spec, run, planned, part, preparations))]
            async with all_ended(finishing), faults_shown(recovery):
                while await cells.any_to_answer():
                    claim.begin()
                    await asyncio.wait(preparations, timeout=IMPORT_SECONDS)
                    works = [work for work in known(preparations) if cells.is_left(work)]
                    all_known = works if all(each.done() for each in preparations) else None
                    placed = await spread(spec, recovery.planned, fleet, all_known)
                    placed = await compiled_or_not(spec, placed, fleet, all_known)
                    try:
                        async with bench(ours, placed) as (on, info):
                            on = replace(on, spool=spool, patience=spec.policy.store_patience_seconds)
                            await answer_cells(on, info, placed, preparations, cells, finishing)
                    except SteelyardError:
                        if recovery.move() is None or control.is_cancelled:
                            raise
                        cells.reopen_failed()
            raise_first(failure_of(each) for each in preparations)


@asynccontextmanager
async def bench(ours: ModelRun, planned: PlannedModel, *, keep: bool = True) -> AsyncIterator[tuple[Bench, EngineInfo]]:
    """Hold the placement's devices, its Ray cluster and an open engine or replicas of it on them, all watched.

    ``keep`` leaves a service loaded for the next; what a failure leaves behind never is. An engine that dies is started again as
    the recovery says; where that is not enough, the model may have to be moved.
    """
    spec, fleet, timeline = ours.spec, ours.fleet, ours.timeline
    config = engine_config(spec, planned, fleet, ours.weights)

    def engine_on(held: Held) -> Build:
        def build(config: EngineConfig, again: bool) -> Engine:
            if again and cluster is not None and held.devices == cluster.devices:  # a replica has a cluster of its own
                stand(config)
            return build_engine(spec, planned, config, held, cluster)

        return recovering(config, build)

    async with AsyncExitStack() as stack:
        until_free = stack.enter_context(ExitStack())
        with timeline.span("wait"):
            held = await stack.enter_async_context(hold_devices(spec, planned, fleet, config, ours.place))
        began = time.monotonic()
        with timeline.span("load"):
            cluster = await stack.enter_async_context(provisioned(spec, planned, fleet, config, held, ours.run))
            stand = await stack.enter_async_context(standing(cluster, held))
            engine, holder = await stack.enter_async_context(
                replicated(spec, planned, fleet, held, engine_on, ours.recovery)
            )
            monitor = await stack.enter_async_context(
                monitored(spec, fleet, planned.model.name, holder, engine, ours.run)
            )
        sound = False
        try:
            with timeline.span("load"):
                info = await open_engine(quote(engine), planned.model.name)
            if info.load_seconds:  # devices were held for the Ray cluster's start too
                info = replace(info, load_seconds=time.monotonic() - began)
            await asyncio.to_thread(ours.claim.end)
            yield (
                Bench(
                    engine=engine,
                    results=spec.results,
                    control=ours.control,
                    monitor=monitor,
                    timeline=timeline,
                    recovery=ours.recovery,
                    expected=ours.expected,
                ),
                info,
            )
            sound = True
        finally:
            until_free.enter_context(timeline.span("close"))
            await asyncio.shield(asyncio.to_thread(engine.close, keep=keep and sound))
            if cluster is None:
                held.release()  # the last readings need no device
                until_free.close()


async def answer_cells(
    on: Bench,
    info: EngineInfo,
    planned: PlannedModel,
    preparations: Sequence[Preparation],
    cells: Cells,
    finishing: list[asyncio.Task[None]],
) -> None:
    """Have the engine answer all cells at once, each from when it is prepared, but for those that others compute.

    What is answered is scored and stored by tasks that are added to ``finishing``. Raises the first failure of the engine's after
    everything else is answered.
    """

    async def answer(work: CellWork) -> None:
        try:
            run = await evaluate_benchmark(quote(on), quote(work), label_of(work))
        except BaseException:
            cells.failed(work)
            await cells.give_back(work)
            raise
        cells.answered(work)
        finishing.append(asyncio.create_task(finish(on, info, planned, work, run, cells)))

    async def answer_in_turn(work: CellWork, taken: bool | BaseException) -> None:
        if isinstance(taken, BaseException):
            raise taken
        if taken:
            await answer(work)
        while cells.is_left(work) and await cells.engine_is_busy():  # others compute it, and may give up
            if await cells.take(work):
                await answer(work)

    async def when_prepared(preparation: Preparation) -> None:
        with cells.preparing(preparation):
            await asyncio.wait([preparation])
            works = known([preparation])
            taken = await asyncio.gather(*(cells.take(work) for work in works), return_exceptions=True)
        await in_full(map(answer_in_turn, works, taken))

    await in_full(when_prepared(each) for each in preparations)


async def finish(
    on: Bench, info: EngineInfo, planned: PlannedModel, work: CellWork, run: quote[CellRun], cells: Cells
) -> None:
    """Score and store an answered cell."""
    label, benchmark = label_of(work), work.cell.benchmark
    try:
        with on.timeline.span("score", benchmark):
            scoring = await score(quote(work), run, label)
        metadata = cell_metadata(as_used(planned, on.engine), info, run.unquote(), scoring.unquote(), on)
        with on.timeline.span("store", benchmark):
            await store(quote(work), scoring, metadata, quote(on), label)
    finally:
        await cells.give_back(work)


def label_of(work: CellWork) -> str:
    """Name of a cell for people."""
    return f"{work.cell.model} · {work.cell.benchmark}"


@asynccontextmanager
async def faults_shown(recovery: Recovery) -> AsyncIterator[None]:
    """Show after the block, in Prefect, what the engine failed of within it."""
    try:
        yield
    finally:
        if faults := recovery.record():
            await asyncio.shield(show_faults(quote(recovery), recovery.planned.model.name, len(faults)))
