"""Leases of a model's cells: who else computes one is waited for, not raced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.campaign import CampaignSpec
from core.errors import StoreError
from core.results import Store, open_store
from core.store.lease import Lessee
from core.store.open import open_storage
from core.store.patience import patiently_in_thread
from tasks.prepare import CellWork
from tasks.say import say

log = logging.getLogger("steelyard.results")


class Leases:
    """The leases of one model's part of a run."""

    def __init__(self, store: Store, lessee: Lessee, patience: float) -> None:
        self._store, self._lessee, self._patience = store, lessee, patience
        self._told: set[str] = set()

    async def take(self, work: CellWork) -> bool | None:
        """Take the lease of a cell. None where the cell is complete, False where another computes it."""
        taken = await patiently_in_thread(_Take(self._store, self._lessee, work.cell.fingerprint), self._patience)
        if taken is False and work.cell.fingerprint not in self._told:
            self._told.add(work.cell.fingerprint)
            say(f"{work.cell.model} · {work.cell.benchmark}: is being computed by another, and waited for")
        return taken

    async def give_back(self, work: CellWork) -> None:
        """Let others have the cell. One that the store does not take back expires once this model is done."""
        try:
            await asyncio.shield(asyncio.to_thread(self._lessee.release, work.cell.fingerprint))
        except StoreError as error:
            log.warning("the lease of %s · %s stays a while: %s", work.cell.model, work.cell.benchmark, error)


class _Take:
    """One taking of a lease, tried again where the store does not answer: what an earlier try got is not asked for again."""

    def __init__(self, store: Store, lessee: Lessee, fingerprint: str) -> None:
        self._store, self._lessee, self._fingerprint = store, lessee, fingerprint
        self._acquired = False

    def __call__(self) -> bool | None:
        if not self._acquired:
            if self._store.is_complete(self._fingerprint):
                return None
            self._acquired = self._lessee.acquire(self._fingerprint)
            if not self._acquired:
                return False
        if self._store.is_complete(self._fingerprint):  # whoever held it until a moment ago has committed it
            self._lessee.release(self._fingerprint)
            return None
        return True


@asynccontextmanager
async def leasing(spec: CampaignSpec, run: str, model: str) -> AsyncIterator[Leases]:
    """Give leases that end with the block at the latest."""
    lessee = Lessee(open_storage(spec.results), {"campaign": spec.name, "run": run, "model": model})
    try:
        yield Leases(open_store(spec.results), lessee, spec.policy.store_patience_seconds)
    finally:
        await asyncio.shield(asyncio.to_thread(lessee.close))
