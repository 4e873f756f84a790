"""A model's cells: which are left to compute, by whom, and whether an engine is still needed for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from core.campaign import BenchmarkSpec, CampaignSpec, benchmark_label
from core.cell_work import CellWork
from core.log import say
from core.model.placement import PlannedModel
from core.monitor.timeline import Timeline
from flows.holding import Leases
from tasks.prepare import prepare, prepare_judging
from tasks.publish import record_model, record_verdicts

POLL_SECONDS = 2.0  # a cell that others complete tells nobody
POLL_SECONDS_PER_CELL = 0.25  # the more there are to look at, the less often


class Cells:
    """What is left of a model's cells. One that another computes is left to it, and taken where it gives up."""

    def __init__(self, preparations: Sequence[Preparation], leases: Leases) -> None:
        self._preparations, self._leases = preparations, leases
        self._over: set[str] = set()  # complete, answered here, or given up
        self._failed: set[str] = set()  # of those, the ones that could not be answered
        self._reserved: set[str] = set()  # leased by `any_to_answer`
        self._busy: set[object] = set()
        self._idle = asyncio.Event()

    async def any_to_answer(self) -> bool:
        """Wait until a cell is ours to answer; False once none is left. Needs no engine."""
        while True:
            works = [work for work in known(self._preparations) if self.is_left(work)]
            for work in works:
                if await self.take(work):
                    self._reserved.add(work.cell.fingerprint)
                    return True
            pending = [each for each in self._preparations if not each.done()]
            left = [work for work in works if self.is_left(work)]
            if pending:
                seconds = self._poll_seconds() if left else None
                await asyncio.wait(pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            elif left:
                await asyncio.sleep(self._poll_seconds())
            else:
                return False

    def is_left(self, work: CellWork) -> bool:
        """Whether a cell is neither complete, nor answered here, nor given up, as far as is known."""
        return not work.complete and work.cell.fingerprint not in self._over

    async def take(self, work: CellWork) -> bool:
        """Take a cell to be answered here. One that is taken keeps the engine busy until `answered` or `failed`."""
        fingerprint = work.cell.fingerprint
        if fingerprint in self._reserved:
            self._reserved.discard(fingerprint)
            return True
        if not self.is_left(work) or fingerprint in self._busy:
            return False
        taken = await self._leases.take(work)
        if taken is None:
            self._over.add(fingerprint)
        if taken:
            self._begin(fingerprint)
        return bool(taken)

    def answered(self, work: CellWork) -> None:
        """Count a cell that was taken as done with."""
        self._over.add(work.cell.fingerprint)
        self._end(work.cell.fingerprint)

    def failed(self, work: CellWork) -> None:
        """Give a cell up that was taken."""
        self._failed.add(work.cell.fingerprint)
        self.answered(work)

    def reopen_failed(self) -> None:
        """Have cells that were given up answered after all, by another engine."""
        self._over -= self._failed
        self._failed.clear()

    async def give_back(self, work: CellWork) -> None:
        """Let others have a cell that is committed, or cannot be."""
        await self._leases.give_back(work)

    @contextmanager
    def preparing(self, preparation: Preparation) -> Iterator[None]:
        """Keep the engine busy within the block."""
        self._begin(preparation)
        try:
            yield
        finally:
            self._end(preparation)

    async def engine_is_busy(self) -> bool:
        """Wait a moment; False where the engine has nothing of this model's to do."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), self._poll_seconds())
            return False
        return True

    def _poll_seconds(self) -> float:
        left = sum(self.is_left(work) for work in known(self._preparations))
        return max(POLL_SECONDS, POLL_SECONDS_PER_CELL * left)

    def _begin(self, what: object) -> None:
        self._busy.add(what)
        self._idle.clear()

    def _end(self, what: object) -> None:
        self._busy.discard(what)
        if not self._busy:
            self._idle.set()


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


@asynccontextmanager
async def all_ended(tasks: list[asyncio.Task[None]]) -> AsyncIterator[None]:
    """Wait after the block until all ``tasks`` have ended, then raise the first failure. Cancelled, they are cancelled."""
    try:
        yield
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        raise
    finally:
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    raise_first(outcomes)


async def in_full(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all to their ends at once, then raise the first failure."""
    raise_first(await asyncio.gather(*coroutines, return_exceptions=True))


def raise_first(outcomes: Iterable[object]) -> None:
    """Raise the first of ``outcomes`` that is an exception."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
