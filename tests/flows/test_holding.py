"""Taking leases from a store that goes away in between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from core.cell_work import CellWork
from core.errors import StoreUnreachableError
from core.results import Store
from core.storage.local import LocalStorage
from core.store.lease import Lessee
from flows.holding import Leases
from tests.core.store_parts import make_cell


class Flaky(Store):
    """A store that does not answer when it is asked for the second time whether a cell is complete."""

    asked = 0

    def is_complete(self, fingerprint: str) -> bool:
        self.asked += 1
        if self.asked == 2:
            raise StoreUnreachableError("it does not answer")
        return super().is_complete(fingerprint)


def test_a_lease_got_just_before_the_store_went_away_is_ours_when_it_is_back(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    lessee = Lessee(storage, {})
    leases = Leases(Flaky(storage), lessee, patience=60)
    benchmark: Any = None
    work = CellWork(make_cell("a"), benchmark, complete=False)
    try:
        assert asyncio.run(leases.take(work)) is True
        assert asyncio.run(leases.take(work)) is False  # as another benchmark of the same cell
    finally:
        lessee.close()
