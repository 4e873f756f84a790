"""Creating an object once where a server has no create-only writes: the first claim of the name, by its clock, wins.

A claim is an object of its own beside the name. Some seconds after writing its own a claimant sees every earlier one (S3's
listings are consistent), so all agree on the first. A claim whose owner is silent goes stale.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from core.errors import StoreError
from core.storage.storage import SCRATCH, Storage, path_part

SETTLE_SECONDS = 2.5  # modification times come in whole seconds
STALE_SECONDS = 60.0  # of a claim: its owner is dead, or so slow that it has to claim again
POLL_SECONDS = 0.5  # a server tells nobody of a change


class Claimed(Storage, Protocol):
    """A storage with claims."""

    def written(self, folder: str) -> Mapping[str, float]:
        """Return when each object below ``folder`` was written, in unix seconds by the server's clock."""
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
                ) is not None:  # an earlier claimant has written, and withdrawn its claim
                    return there == data
                if time.monotonic() - begun < stale / 2:
                    storage.put(path, data)
                    return True
        finally:
            storage.delete([mine])
        _await(storage, path, folder, stale, rest)
    raise StoreError(f"cannot write {path}: other writers kept it busy; run again")


def _await(storage: Claimed, path: str, folder: str, stale: float, rest: Callable[[float], object]) -> None:
    """Wait until ``path`` is there, or has no claim any more; claims that stay too long are deleted."""
    begun = time.monotonic()
    while storage.read(path) is None and (claims := storage.written(folder)):
        if time.monotonic() - begun > stale:
            storage.delete(list(claims))
            return
        rest(POLL_SECONDS)
