"""Preparing a model's benchmarks side by side; what is known of them so far decides whether and how its engine starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from core.campaign import BenchmarkSpec, CampaignSpec, benchmark_label
from core.plan import PlannedModel
from tasks.judge import prepare_judging
from tasks.prepare import CellWork, prepare
from tasks.publish import record_model, record_verdicts
from tasks.say import say
from tasks.timeline import Timeline

Part = Literal["benchmarks", "judge", "canary"]
Preparation = asyncio.Task[list[CellWork]]


@asynccontextmanager
async def preparing(
    spec: CampaignSpec, run: str, planned: PlannedModel, weights: Path, part: Part, timeline: Timeline
) -> AsyncIterator[list[Preparation]]:
    """Begin to prepare all that ``part`` has to answer. What is not prepared when the block ends is given up."""

    async def one(benchmark: BenchmarkSpec) -> list[CellWork]:
        with timeline.span("prepare", benchmark_label(benchmark)):
            work: CellWork = (await prepare(spec, planned, weights, benchmark)).unquote()
        return told([work])

    async def judging() -> list[CellWork]:
        with timeline.span("prepare"):
            works: list[CellWork] = (await prepare_judging(spec, run, planned, weights)).unquote()
        return told(works)

    def told(works: list[CellWork]) -> list[CellWork]:
        for work in works:
            if work.complete:
                say(f"{work.cell.model} · {work.cell.benchmark}: complete in the store, not computed again")
        return works

    steps = [judging()] if part == "judge" else [one(benchmark) for benchmark in spec.benchmarks]
    preparations = [asyncio.create_task(step) for step in steps]
    try:
        yield preparations
    finally:
        await given_up(preparations)


async def given_up(tasks: Sequence[Preparation]) -> None:
    """Cancel what has not ended, and wait until it has."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def record(
    spec: CampaignSpec, run: str, planned: PlannedModel, part: Part, preparations: Sequence[Preparation]
) -> None:
    """Say in the store what the run asks for, as far as it is known, and once more when all is known."""
    say_so = record_verdicts if part == "judge" else record_model
    works = known(preparations)
    if works:
        await say_so(spec, run, planned, [work.cell for work in works])
    await asyncio.wait(preparations)
    if len(known(preparations)) > len(works):  # also where they were prepared while the first was written
        await say_so(spec, run, planned, [work.cell for work in known(preparations)])


def known(preparations: Iterable[Preparation]) -> list[CellWork]:
    """Return the cells that are prepared."""
    return [work for each in preparations if each.done() and not failure_of(each) for work in each.result()]


def failure_of(task: Preparation) -> BaseException | None:
    """Return what a task that has ended raised."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def work_is_known(preparations: Sequence[Preparation]) -> None:
    """Wait until a cell is known that is not complete in the store, or all are known."""
    pending: set[Preparation] = set(preparations)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if any(not work.complete for work in known(done)):
            return
