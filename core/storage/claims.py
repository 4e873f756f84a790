"""Creating an object once where a server has no create-only writes: whoever claims the name first, by its clock, writes it.

A claim is an object of its own beside the name. All claims that were written before one's own are seen when one looks some seconds
after writing it (S3's listings are consistent), so all who claim agree on the first. A claim whose owner is silent goes stale.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from core.errors import StoreError
from core.storage.storage import SCRATCH, path_part

SETTLE_SECONDS = 2.5  # modification times come in whole seconds
STALE_SECONDS = 60.0  # of a claim: its owner is dead, or so slow that it has to claim again
POLL_SECONDS = 0.5  # a server tells nobody of a change


class Claimed(Protocol):
    """What claims need of a `core.storage.storage.Storage`."""

    def put(self, path: str, data: bytes) -> None:
        """See `core.storage.storage.Storage.put`."""
        ...

    def read(self, path: str) -> bytes | None:
        """See `core.storage.storage.Storage.read`."""
        ...

    def delete(self, paths: list[str]) -> None:
        """See `core.storage.storage.Storage.delete`."""
        ...

    def written(self, folder: str) -> Mapping[str, float]:
        """When each object below ``folder`` was written, in unix seconds by the server's clock."""
        ...


def put_once(
    storage: Claimed,
    path: str,
    data: bytes,
    *,
    settle: float = SETTLE_SECONDS,
    stale: float = STALE_SECONDS,
    rest: Callable[[float], object] = time.sleep,
) -> bool:
    """Create ``path`` as `core.storage.storage.Storage.put_new` does, with claims. Takes ``settle`` seconds and more.

    Raises `core.errors.StoreError` where others keep the name busy for very long.
    """
    folder = f"{SCRATCH}/claims/{path_part(path.replace('/', '|'))}"
    deadline = time.monotonic() + 10 * stale
    while time.monotonic() < deadline:
        if (there := storage.read(path)) is not None:
            return there == data
        mine = f"{folder}/{secrets.token_hex(8)}"
        begun = time.monotonic()
        storage.put(mine, b"")
        try:
            rest(settle)
            claims = storage.written(folder)
            if mine in claims and mine == min(claims, key=lambda claim: (claims[claim], claim)):
                if (
                    there := storage.read(path)
                ) is not None:  # who claimed before has written, and taken its claim away
                    return there == data
                if time.monotonic() - begun < stale / 2:
                    storage.put(path, data)
                    return True
        finally:
            storage.delete([mine])
        _await(storage, path, folder, stale, rest)
    raise StoreError(f"cannot write {path}: other writers kept it busy; run again")


def _await(storage: Claimed, path: str, folder: str, stale: float, rest: Callable[[float], object]) -> None:
    """Wait until ``path`` is there, or nobody claims it any more; claims that stay too long are taken away."""
    begun = time.monotonic()
    while storage.read(path) is None and (claims := storage.written(folder)):
        if time.monotonic() - begun > stale:
            storage.delete(list(claims))
            return
        rest(POLL_SECONDS)
