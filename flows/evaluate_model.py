"""Subflow of one model, top to bottom: place, fetch, hold devices, load, answer; score and store behind the engine's back.

The steps overlap. vLLM is imported while benchmarks are prepared and devices waited for; the engine loads as soon as there is
something to answer; what is answered is scored and stored while the engine answers the rest, or has given its devices back.
"""

from __future__ import annotations

from prefect import flow
from prefect.context import TagsContext
from prefect.states import State

from core.campaign import CampaignSpec
from core.cell_work import CellWork
from core.errors import SteelyardError
from core.planning.cost.expected import Expected
from engines.bench.answering import CellRun
from engines.bench.bench import Bench
from engines.bench.job import Job, Part, fitted
from engines.control import Control
from flows.cells import Cells, Together, record
from flows.failures import told_apart
from flows.holding import holding, open_job
from flows.interrupt import run_cancellable
from tasks.evaluate import answer_canary, evaluate_cell, score, store
from tasks.plan import place
from tasks.prepare import fetch
from tasks.provision import open_engine, provision


@flow(name="evaluate-model", persist_result=False)
async def evaluate_model(
    spec: CampaignSpec, model: str, run: str, part: Part = "benchmarks", expected: Expected | None = None
) -> State | None:
    """Evaluate the model named ``model`` on every benchmark of ``spec``, as part of the campaign's run ``run``.

    As "judge" it scores instead the run's answers that a benchmark has it judge; as "canary" it answers the canary set, by which
    engines are compared. Raises what failed, each cell's own reason, after all that could be computed is in the results store; ends
    Cancelled where people ask for that.

    Args:
        spec: The campaign.
        model: Name of the campaign's model to evaluate.
        run: The campaign's run in the results store.
        part: What to do of the campaign: its benchmarks, judging, or the canary set.
        expected: What the part is expected to take; not known when left out.
    """
    with TagsContext(current_tags=set()):  # a task with tags asks the server for a slot of each: slow, on SQLite
        return await run_cancellable(lambda control: evaluate(spec, model, run, part, expected, control), model)


async def evaluate(
    spec: CampaignSpec, model: str, run: str, part: Part, expected: Expected | None, control: Control
) -> None:
    """Do what is left to do for one model."""
    fleet, placed = await place(spec, model)
    async with open_job(spec, fleet, placed, run, part, expected, control) as job:
        await fetch(job)
        if part == "canary":
            await evaluate_canary(job)
        else:
            await evaluate_cells(job)


async def evaluate_canary(job: Job) -> None:
    """Answer the canary set on the engine of the job's placement."""
    job.claim.begin()
    async with Bench(job, job.placed, keep=False) as bench:
        await load(bench)
        await answer_canary(bench)


async def evaluate_cells(job: Job) -> None:
    """Answer, score and store the job's cells, on one engine after the other where one does not do."""
    async with (
        holding(job) as (leases, spool),
        Cells(job, leases, spool) as cells,
        told_apart(cells),
    ):  # all is being prepared
        async with Together() as finishing:
            finishing.begin(record(cells))
            while await cells.any_to_answer():
                await answer_on_an_engine(job, cells, finishing)
        cells.raise_unprepared()  # last, so that what could be computed is stored


async def answer_on_an_engine(job: Job, cells: Cells, finishing: Together) -> None:
    """Load an engine for what is left and have it answer; where it does not do, the next may be placed elsewhere."""
    try:
        async with Bench(job, await fitted(job, await cells.work_ahead()), cells.spool) as bench:
            await load(bench)
            await answer(cells, bench, finishing)
    except SteelyardError:
        if not job.moves():  # no other placement is left, or people cancelled
            raise
        cells.reopen_failed()


async def load(bench: Bench) -> None:
    """Have an engine that answers, on devices of its own."""
    await bench.hold()
    with bench.job.timeline.span("load"):
        await provision(bench)
        await bench.build()
        await open_engine(bench)


async def answer(cells: Cells, bench: Bench, finishing: Together) -> None:
    """Have the engine answer all cells at once, each from when it is prepared, but for those that others compute."""

    async def one(work: CellWork) -> None:
        async with cells.answering(work):
            answers = await evaluate_cell(bench, work)
        finishing.begin(finish(cells, bench, work, answers))

    async with Together() as answering:  # all to their ends, then the first failure
        async for work in cells.ours():  # prepared and leased; taken over where another gave up
            answering.begin(one(work))


async def finish(cells: Cells, bench: Bench, work: CellWork, answers: CellRun) -> None:
    """Score and store an answered cell, then let others have it."""
    async with cells.giving_back(work):
        scoring = await score(bench, work, answers)
        await store(bench, work, scoring, answers)
