"""Garbage of a results store: files that nothing needs, deleted past a grace time. Foreign files are named and left alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from core.results import Store
from core.storage.open import open_storage
from core.storage.storage import SCRATCH, Storage
from core.store.asked import FOLDER, cell_of
from core.store.commit import FINGERPRINT
from core.store.lease import EXPIRES_SECONDS, HOLDER_NAME, LEASE_NAME
from core.store.schema import SAMPLES, SCORES, decode
from core.store.shards import SHARD_NAME
from core.upkeep.status import living_leases

GRACE_SECONDS = 7 * 24 * 3600.0
RECORD_NAME = re.compile(r"cells/[0-9a-f]{64}\.json")


@dataclass(frozen=True)
class Garbage:
    """A file and why it is not needed. One that is ``foreign`` is not ours to delete."""

    path: str
    reason: str
    foreign: bool = False


def find_garbage(store: Store, grace: float = GRACE_SECONDS) -> list[Garbage]:
    """Return the files that nothing needs, older than ``grace`` seconds, and, at any age, those that are foreign or torn.

    Shards of cells that are being computed are never among it. Raises `core.errors.StoreError` where the store cannot be read.
    """
    storage = open_storage(store.uri)
    working = living_leases(storage)
    # After the leases: a cell that is completed meanwhile has its record by now.
    records = store.commit_records()
    committed = {entry["path"] for record in records.values() for entry in record["files"]}
    candidates = [
        *_shards(storage, set(records), set(working)),
        *_tables(storage, committed),
        *_asked(storage, set(records)),
        *_leases(storage, {lease.path for lease in working.values()}, {lease.holder for lease in working.values()}),
        *(Garbage(path, "left by a process that was killed") for path in storage.list(SCRATCH)),
        *(
            Garbage(path, "no commit record of ours", foreign=True)
            for path in storage.list("cells")
            if not RECORD_NAME.fullmatch(path)
        ),
    ]
    return [each for each in candidates if each.foreign or (storage.age(each.path) or 0.0) > grace]


def _shards(storage: Storage, complete: set[str], working: set[str]) -> Iterator[Garbage]:
    for path in storage.list("responses"):
        parts = path.split("/")
        fingerprint = parts[1].removeprefix("cell=")
        if len(parts) != 3 or not FINGERPRINT.fullmatch(fingerprint) or not SHARD_NAME.fullmatch(parts[2]):
            yield Garbage(path, "no shard of ours", foreign=True)
        elif fingerprint in complete:
            yield Garbage(path, "its cell is complete")
        elif fingerprint not in working:
            yield Garbage(path, "its cell was never completed")


def _tables(storage: Storage, committed: set[str]) -> Iterator[Garbage]:
    """Files of samples and scores that no record names."""
    for kind, schema in (("samples", SAMPLES), ("scores", SCORES)):
        for path in storage.list(kind):
            if path in committed:
                continue
            name = path.rsplit("/", 1)[1].removesuffix(".parquet")
            data = storage.read(path)
            try:
                decode(data or b"", schema, columns=["fingerprint"])
            except ValueError as error:
                yield Garbage(path, f"no {kind} of ours: {error}", foreign=not FINGERPRINT.fullmatch(name))
            else:
                yield Garbage(path, "its cell has no commit record")


def _asked(storage: Storage, complete: set[str]) -> Iterator[Garbage]:
    """Files that say what a cell asked of which nothing is left."""
    begun = {path.split("/")[1].removeprefix("cell=") for path in storage.list("responses")}
    for path in storage.list(FOLDER):
        try:
            fingerprint = cell_of(path)
        except ValueError as error:
            yield Garbage(path, str(error), foreign=True)
        else:
            if fingerprint not in complete | begun:
                yield Garbage(path, "its cell has no answers")


def _leases(storage: Storage, living: set[str], holders: set[str]) -> Iterator[Garbage]:
    for path in storage.list("leases"):
        if not LEASE_NAME.fullmatch(path):
            yield Garbage(path, "no lease of ours", foreign=True)
        elif path not in living:
            yield Garbage(path, "its holder is gone, or has been superseded")
    for path in storage.list("holders"):
        if not HOLDER_NAME.fullmatch(path):
            yield Garbage(path, "no holder of ours", foreign=True)
        elif path.removeprefix("holders/").removesuffix(".json") not in holders and (
            (storage.age(path) or 0.0) > 2 * EXPIRES_SECONDS
        ):
            yield Garbage(path, "it has given no sign of life")


def collect(store: Store, garbage: list[Garbage]) -> int:
    """Delete what is not foreign. Returns how many files that were."""
    ours = [each.path for each in garbage if not each.foreign]
    open_storage(store.uri).delete(ours)
    return len(ours)
