"""A model's cells: prepared side by side, then which are left to compute, by whom, and for how long they need an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from core.campaign import BenchmarkSpec, benchmark_label
from core.cell_work import CellWork
from core.log import log
from core.store.spool import Spool
from engines.bench.job import Job
from flows.holding import Leases
from tasks.evaluate import score_answered
from tasks.prepare import prepare, prepare_judging
from tasks.publish import record_model, record_verdicts

POLL_SECONDS = 2.0  # nothing announces a cell that others complete
POLL_SECONDS_PER_CELL = 0.25  # the more there are to look at, the less often
WARM_SECONDS = 2.0  # benchmarks that take longer to prepare are usually not complete
IMPORT_SECONDS = 8.0  # until the process that is to load has vLLM imported; meanwhile more becomes known of the work

Preparation = asyncio.Task[list[CellWork]]


class Cells:
    """What a job has to answer. A cell that another computes is left to it, and taken where it gives up.

    An async context manager: within it all is being prepared; what is not prepared at its end is given up. ``spool`` is for the
    engines that answer.
    """

    def __init__(self, job: Job, leases: Leases, spool: Spool | None) -> None:
        self.job, self._leases, self.spool = job, leases, spool
        self._asked: list[BenchmarkSpec | None] = [None] if job.part == "judge" else [*job.spec.benchmarks]
        self._preparations: list[Preparation] = []
        self._over: set[str] = set()  # complete, answered here, or given up
        self._failed: set[str] = set()  # of those, the ones that could not be answered
        self._errors: dict[str, tuple[CellWork, BaseException]] = {}  # of failed cells, by fingerprint
        self._reserved: set[str] = set()  # leased by `any_to_answer`
        self._busy: set[object] = set()
        self._idle = asyncio.Event()

    async def __aenter__(self) -> Cells:
        self._preparations = [asyncio.create_task(self._prepare(each)) for each in self._asked]
        return self

    async def __aexit__(self, *_: object) -> None:
        for preparation in self._preparations:
            preparation.cancel()
        await asyncio.gather(*self._preparations, return_exceptions=True)

    def known(self) -> list[CellWork]:
        """Return the cells that are prepared."""
        return known(self._preparations)

    def failures(self) -> dict[tuple[str, str], BaseException]:
        """Return the errors of cells that could not be prepared, answered, scored or stored, by (model, benchmark)."""
        found = {(work.cell.model, work.cell.benchmark): error for work, error in self._errors.values()}
        for preparation, benchmark in zip(self._preparations, self._asked, strict=True):
            error = failure_of(preparation) if preparation.done() else None
            if error is not None and benchmark is not None and isinstance(error, Exception):
                found[self.job.model, benchmark_label(benchmark)] = error
        return found

    def raise_unprepared(self) -> None:
        """Raise the first reason why what is asked could not be prepared."""
        raise_first(failure_of(each) for each in self._preparations)

    async def all_known(self, timeout: float | None = None) -> bool:
        """Wait until all is prepared, or ``timeout`` seconds; False where something is not."""
        _, pending = await asyncio.wait(self._preparations, timeout=timeout)
        return not pending

    async def any_known(self) -> None:
        """Wait until a cell is known that is not complete in the store, or all are known."""
        pending: set[Preparation] = set(self._preparations)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if any(not work.complete for work in known(done)):
                return

    async def any_to_answer(self) -> bool:
        """Wait until a cell is ours to answer; False once none is left. Needs no engine, and asks for a process for one in time."""
        warm = asyncio.get_running_loop().call_later(WARM_SECONDS, self.job.claim.begin)
        await self.any_known()
        warm.cancel()
        while True:
            works = [work for work in self.known() if self._is_left(work)]
            for work in works:
                if await self._take(work):
                    self._reserved.add(work.cell.fingerprint)
                    self.job.claim.begin()
                    return True
            pending = [each for each in self._preparations if not each.done()]
            left = [work for work in works if self._is_left(work)]
            if pending:
                seconds = self._poll_seconds() if left else None
                await asyncio.wait(pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            elif left:
                await asyncio.sleep(self._poll_seconds())
            else:
                return False

    async def work_ahead(self) -> list[CellWork] | None:
        """Return what is left, once a process could load it; None where not all of it is known by then."""
        all_known = await self.all_known(IMPORT_SECONDS)
        return [work for work in self.known() if self._is_left(work)] if all_known else None

    async def ours(self) -> AsyncIterator[CellWork]:
        """Yield each cell to be answered here, from when it is prepared and taken, until the engine has nothing left to do.

        Raises the first failure of taking one once all others are over.
        """
        ready: asyncio.Queue[CellWork | None] = asyncio.Queue()
        looking = asyncio.gather(*(self._look(each, ready) for each in self._preparations), return_exceptions=True)
        looking.add_done_callback(lambda _: ready.put_nowait(None))
        try:
            while (work := await ready.get()) is not None:
                yield work
        finally:
            looking.cancel()
            await asyncio.wait([looking])
        raise_first(looking.result())

    @asynccontextmanager
    async def answering(self, work: CellWork) -> AsyncIterator[None]:
        """Keep the engine busy with a cell that is ours within the block. One that fails there is given up, and back to others."""
        try:
            yield
        except BaseException as error:
            self._failed.add(work.cell.fingerprint)
            self._errors[work.cell.fingerprint] = work, error
            self._end(work)
            await self._leases.give_back(work)
            raise
        self._end(work)

    @asynccontextmanager
    async def giving_back(self, work: CellWork) -> AsyncIterator[None]:
        """Let others have a cell after the block: it is committed, or cannot be."""
        try:
            yield
        except BaseException as error:
            self._errors[work.cell.fingerprint] = work, error
            raise
        finally:
            await self._leases.give_back(work)

    def reopen_failed(self) -> None:
        """Have cells that were given up answered after all, by another engine."""
        self._over -= self._failed
        for fingerprint in self._failed:
            self._errors.pop(fingerprint, None)
        self._failed.clear()

    async def _prepare(self, benchmark: BenchmarkSpec | None) -> list[CellWork]:
        """Prepare a benchmark's cell; without one, all that the job's model is to judge. What is answered already is scored."""
        job = self.job
        with job.timeline.span("prepare", benchmark_label(benchmark) if benchmark else ""):
            if benchmark is None:
                works = await prepare_judging(job.spec, job.run, job.placed, job.weights)
            else:
                works = [await prepare(job.spec, job.placed, job.weights, benchmark)]
        for work in works:
            if work.complete:
                log.info(f"{work.label}: complete in the store, not computed again")
        return [await self._scored(work) if work.answered else work for work in works]

    async def _scored(self, work: CellWork) -> CellWork:
        """Score a cell whose answers are all stored: that needs no engine. One that fails is given up."""
        taken = await self._leases.take(work)
        if not taken:
            return replace(work, complete=taken is None)
        try:
            async with self.giving_back(work):
                with self.job.timeline.span("score", work.cell.benchmark):
                    return replace(work, complete=await score_answered(work, self.job.spec))
        except Exception:  # its reason is kept, and raised with all others'
            self._over.add(work.cell.fingerprint)
            return work

    async def _look(self, preparation: Preparation, ready: asyncio.Queue[CellWork | None]) -> None:
        """Hand on the cells of one preparation that are ours; what others compute is taken over where they give up."""
        self._begin(preparation)
        try:
            await asyncio.wait([preparation])
            works = known([preparation])
            taken = await asyncio.gather(*(self._take(work) for work in works), return_exceptions=True)
        finally:
            self._stop(preparation)
        for work, mine in zip(works, taken, strict=True):
            if mine is True:
                ready.put_nowait(work)
        await asyncio.gather(*(self._take_over(work, ready) for work in works))
        raise_first(taken)

    async def _take_over(self, work: CellWork, ready: asyncio.Queue[CellWork | None]) -> None:
        while self._is_left(work) and await self._engine_is_busy():
            if await self._take(work):
                ready.put_nowait(work)

    def _is_left(self, work: CellWork) -> bool:
        """Whether a cell is neither complete, nor answered here, nor given up, as far as is known."""
        return not work.complete and work.cell.fingerprint not in self._over

    async def _take(self, work: CellWork) -> bool:
        """Lease a cell to be answered here. A leased one keeps the engine busy until it is answered."""
        fingerprint = work.cell.fingerprint
        if fingerprint in self._reserved:
            self._reserved.discard(fingerprint)
            return True
        if not self._is_left(work) or fingerprint in self._busy:
            return False
        taken = await self._leases.take(work)
        if taken is None:
            self._over.add(fingerprint)
        if taken:
            self._begin(fingerprint)
        return bool(taken)

    async def _engine_is_busy(self) -> bool:
        """Wait a moment; False where the engine has nothing of this model's to do."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), self._poll_seconds())
            return False
        return True

    def _poll_seconds(self) -> float:
        left = sum(self._is_left(work) for work in self.known())
        return max(POLL_SECONDS, POLL_SECONDS_PER_CELL * left)

    def _begin(self, what: object) -> None:
        self._busy.add(what)
        self._idle.clear()

    def _stop(self, what: object) -> None:
        self._busy.discard(what)
        if not self._busy:
            self._idle.set()

    def _end(self, work: CellWork) -> None:
        self._over.add(work.cell.fingerprint)
        self._stop(work.cell.fingerprint)


async def record(cells: Cells) -> None:
    """Write to the store what the run asks for, as far as it is known once something is to compute, and once more when all is."""
    job = cells.job
    write = record_verdicts if job.part == "judge" else record_model
    await cells.any_known()
    if works := cells.known():
        await write(job.spec, job.run, job.placed, [work.cell for work in works])
    await cells.all_known()
    if len(cells.known()) > len(works):  # also where they were prepared while the first was written
        await write(job.spec, job.run, job.placed, [work.cell for work in cells.known()])


def known(preparations: Iterable[Preparation]) -> list[CellWork]:
    """Return the cells that are prepared."""
    return [work for each in preparations if each.done() and not failure_of(each) for work in each.result()]


def failure_of(preparation: Preparation) -> BaseException | None:
    """Return what a preparation that has ended raised."""
    return asyncio.CancelledError() if preparation.cancelled() else preparation.exception()


class Together:
    """An async context manager that waits at its end until all that was begun has ended, then raises the first failure.

    `asyncio.TaskGroup` would cancel the others at the first failure. Cancelled, it cancels them, and waits all the same.
    """

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start one more."""
        self._tasks.append(asyncio.create_task(coroutine))

    async def __aenter__(self) -> Together:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncio.CancelledError):
            for task in self._tasks:
                task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None:
            raise_first(outcomes)


def raise_first(outcomes: Iterable[object]) -> None:
    """Raise the first of ``outcomes`` that is an exception."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
