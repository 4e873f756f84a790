"""Why the cells of a model failed, each for its own reason: raised together, and kept in the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from core.cell_work import CellWork
from core.errors import SteelyardError, StoreError, reason_of
from core.log import log
from core.upkeep.status import cell_lines
from flows.cells import Cells, raise_first
from tasks.publish import Failures, record_model, record_verdicts


class CellsFailedError(SteelyardError):
    """Cells failed, each for its own reason; every other result is stored."""


@asynccontextmanager
async def told_apart(cells: Cells) -> AsyncIterator[None]:
    """Raise every failed cell's own reason at the end of the block, and what failed beside them; the store keeps them too."""
    beside: Exception | None = None
    try:
        yield
    except Exception as error:
        beside = error
    failures = cells.failures()
    if cells.job.control.is_cancelled or (beside is None and not failures):
        raise_first([beside])
        return
    if any(beside is error for error in failures.values()):
        beside = None
    reasons = {cell: _reason(*cell, error) for cell, error in failures.items()}
    await asyncio.shield(_record_failures(cells, Failures(reasons, None if beside is None else str(beside))))
    if beside is not None and not failures:
        raise beside
    raise CellsFailedError(in_words(cells.job.model, reasons, beside)) from (beside or next(iter(failures.values())))


def cell_reason(work: CellWork, error: BaseException) -> str:
    """Return why a cell failed, without its own name."""
    return _reason(work.cell.model, work.cell.benchmark, error)


def _reason(model: str, benchmark: str, error: BaseException) -> str:
    text = str(error) if isinstance(error, SteelyardError) else reason_of(error)
    return text.removeprefix(f"{model} · {benchmark}: ").removeprefix(f"{benchmark}: ")


def in_words(model: str, reasons: Mapping[tuple[str, str], str], beside: Exception | None = None) -> str:
    """Return on one line why cells of a model failed, by (model, benchmark), and what failed ``beside`` them."""
    own = {benchmark if name == model else f"{name} · {benchmark}": why for (name, benchmark), why in reasons.items()}
    return "; ".join([*cell_lines(own), *([] if beside is None else [reason_of(beside)])])


async def _record_failures(cells: Cells, failures: Failures) -> None:
    job = cells.job
    write = record_verdicts if job.part == "judge" else record_model
    try:
        await write(job.spec, job.run, job.placed, [work.cell for work in cells.known()], failures)
    except StoreError as error:
        log.warning(f"{job.model}: the store does not hear why its cells failed: {error}")
