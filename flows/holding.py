"""Resources of a model's flow, held from its start to its end: its job, leases of its cells, and a spool."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from core.campaign import CampaignSpec, FleetSpec
from core.cell_work import CellWork
from core.errors import StoreError, UserError
from core.model.placement import PlannedModel
from core.monitor.timeline import Timeline
from core.planning.cost.expected import Expected
from core.results import Store, open_store
from core.storage.open import open_storage
from core.storage.retry import patiently_in_thread
from core.storage.s3 import S3Storage
from core.store.lease import Lessee
from core.store.spool import Spool, SpoolPlan, how_to_upload, left_behind, spool_root, upload
from engines.bench.job import Job, Part, Recovery
from engines.bench.waiting import QueuePlace
from engines.control import Control
from engines.process.lightweight import warming
from tasks.artifacts import show_faults

log = logging.getLogger("steelyard.results")


@asynccontextmanager
async def open_job(
    spec: CampaignSpec,
    fleet: FleetSpec,
    placed: PlannedModel,
    run: str,
    part: Part,
    expected: Expected | None,
    control: Control,
) -> AsyncIterator[Job]:
    """Begin a model's part of a run: in the queue for devices, with its timeline. Both end with the block, and faults are shown."""
    recovery = Recovery(spec, placed, fleet)
    async with recorded(spec, run, placed, part, expected) as timeline, warming(placed, fleet) as claim:
        seconds = None if expected is None else expected.seconds
        with closing(QueuePlace(spec, placed, fleet, seconds)) as queue_place:
            try:
                yield Job(spec, fleet, run, part, expected, control, timeline, claim, recovery, queue_place)
            finally:
                if recovery.record():
                    await asyncio.shield(show_faults(recovery))


@asynccontextmanager
async def recorded(
    spec: CampaignSpec, run: str, planned: PlannedModel, part: str, expected: Expected | None
) -> AsyncIterator[Timeline]:
    """Yield a timeline, begun with what was expected, that is stored at the end of the block. That it cannot be is a warning."""
    timeline = Timeline(planned.model.name, part, planned.placement.engine)
    if expected is not None:
        timeline.plan(expected.starts, expected.ends)
    try:
        yield timeline
    finally:
        await asyncio.shield(asyncio.to_thread(_store, spec, run, timeline))


def _store(spec: CampaignSpec, run: str, timeline: Timeline) -> None:
    try:
        open_store(spec.results).write_timeline(spec.name, run, timeline.spans())
    except StoreError as error:
        log.warning(f"a timeline is lost: {error}")


@asynccontextmanager
async def holding(job: Job) -> AsyncIterator[tuple[Leases, Spool | None]]:
    """Hold what a job's cells need beside an engine until the end of the block: leases, and a spool where results go to S3."""
    spec, about = job.spec, {"campaign": job.spec.name, "run": job.run, "model": job.model}
    lessee = Lessee(open_storage(spec.results), about)
    try:
        async with spooling(spec, about) as spool:
            yield Leases(open_store(spec.results), lessee, spec.policy.store_patience_seconds), spool
    finally:
        await asyncio.shield(asyncio.to_thread(lessee.close))


class Leases:
    """The leases of one model's part of a run."""

    def __init__(self, store: Store, lessee: Lessee, patience: float) -> None:
        self._store, self._lessee, self._patience = store, lessee, patience
        self._logged: set[str] = set()

    async def take(self, work: CellWork) -> bool | None:
        """Acquire the lease of a cell. None where the cell is complete, False where another computes it."""
        fingerprint = work.cell.fingerprint
        if await self._is_complete(fingerprint):
            return None
        if not await patiently_in_thread(lambda: self._lessee.acquire(fingerprint), self._patience):
            if fingerprint not in self._logged:
                self._logged.add(fingerprint)
                log.info(f"{work.label}: is being computed by another, and waited for")
            return False
        if await self._is_complete(fingerprint):  # its holder of a moment ago has committed it
            await patiently_in_thread(lambda: self._lessee.release(fingerprint), self._patience)
            return None
        return True

    async def give_back(self, work: CellWork) -> None:
        """Let others have the cell. One that the store does not take back expires once this model is done."""
        try:
            await asyncio.shield(asyncio.to_thread(self._lessee.release, work.cell.fingerprint))
        except StoreError as error:
            log.warning("the lease of %s stays a while: %s", work.label, error)

    async def _is_complete(self, fingerprint: str) -> bool:
        return await patiently_in_thread(lambda: self._store.is_complete(fingerprint), self._patience)


@asynccontextmanager
async def spooling(spec: CampaignSpec, about: dict[str, str]) -> AsyncIterator[Spool | None]:
    """Yield a spool, empty again when the block has ended; None where results go to a local directory.

    What a killed process of this machine has left in one is brought in before. Raises `core.errors.StoreError` where the store
    stays away for longer than it is waited for, with how to bring in what is left.
    """
    storage = open_storage(spec.results)
    if not isinstance(storage, S3Storage):
        yield None
        return
    policy = spec.policy
    plan = SpoolPlan(spool_root(policy.spool), policy.spool_gb * 1e9, policy.store_patience_seconds)
    await asyncio.to_thread(_bring_in, plan.root, storage.uri)
    spool = Spool(storage, plan, about)
    failure: BaseException | None = None
    left: str | None = None
    try:
        yield spool
    except BaseException as error:
        failure = error
        if not isinstance(error, Exception):
            spool.hurry()
    try:
        await asyncio.to_thread(spool.drain)
    except StoreError as error:
        failure = failure or error
    finally:
        spool.hurry()
        left = await asyncio.shield(asyncio.to_thread(spool.close))
        if left is not None:
            log.warning(how_to_upload(left))
    if left is not None and isinstance(failure, Exception):
        raise StoreError(f"{failure}; {how_to_upload(left)}") from failure
    if failure is not None:
        raise failure


def _bring_in(root: Path, results: str) -> None:
    for folder in left_behind(root, results):
        try:
            log.info(f"{upload(folder)} shards of an earlier run are brought in from spool {folder}")
        except UserError as error:
            log.warning(f"spool {folder} stays: {error}")
