"""Having cells computed again: which ones somebody means, and taking them out of the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from core.errors import StoreError, UserError, nearest
from core.results import Store
from core.storage.open import open_storage
from core.storage.storage import Storage
from core.store.commit import FINGERPRINT, record_path, shards_folder
from core.store.shards import SHARD_NAME
from core.upkeep.status import living_leases


@dataclass(frozen=True)
class Stored:
    """A cell of which something is in the store. A cell may have several names."""

    fingerprint: str
    names: tuple[tuple[str, str], ...]  # (model, benchmark)
    complete: bool


def find_cells(store: Store, model: str | None, benchmark: str | None, fingerprint: str | None) -> list[Stored]:
    """Return the stored cells that all of the given names mean; a fingerprint may be cut to its first 6 digits or more.

    Raises `core.errors.UserError` for a name that no cell has.
    """
    cells = list(_all_cells(store))
    found = cells
    for what, value, names_of in (
        ("model", model, lambda cell: [name for name, _ in cell.names]),
        ("benchmark", benchmark, lambda cell: [name for _, name in cell.names]),
    ):
        if value is not None:
            known = {name for cell in cells for name in names_of(cell)}
            if value not in known:
                names = f"it has {', '.join(sorted(known))}" if known else "it has none"
                raise UserError(
                    f"{what} {value!r}: no cell of {store.uri} has that name{nearest(value, known)}; {names}"
                )
    if fingerprint is not None:
        found = [cell for cell in found if cell.fingerprint.startswith(fingerprint)]
        if len(fingerprint) < 6 or not found:
            raise UserError(
                f"fingerprint {fingerprint!r}: no cell of {store.uri} begins so; give at least 6 digits of it"
            )
    return [
        cell
        for cell in found
        if any(model in (None, one) and benchmark in (None, other) for one, other in cell.names)
        or (model is benchmark is None)
    ]


def invalidate(storage: Storage, fingerprint: str, *, keep_responses: bool = False) -> None:
    """Take a cell out of the store: its record first, so that no reader finds one whose files are gone.

    Raises `core.errors.StoreError` where somebody computes it at the moment.
    """
    if lease := living_leases(storage).get(fingerprint):
        raise StoreError(
            f"cell {fingerprint[:12]} is being computed since {lease.since} by {lease.about or lease.holder}: "
            "wait for its end, or cancel that campaign"
        )
    storage.delete([record_path(fingerprint)])
    storage.delete(path for kind in ("samples", "scores") for path in storage.list(kind) if _is_of(path, fingerprint))
    if not keep_responses:
        storage.delete(shards_of(storage, fingerprint))


def shards_of(storage: Storage, fingerprint: str) -> list[str]:
    """Return the paths of a cell's shards; what else lies there is left alone."""
    return [path for path in storage.list(shards_folder(fingerprint)) if SHARD_NAME.fullmatch(path.rsplit("/", 1)[1])]


def _is_of(path: str, fingerprint: str) -> bool:
    return path.endswith(f"/{fingerprint}.parquet")


def _all_cells(store: Store) -> Iterator[Stored]:
    """Cells with a record, a file of samples or scores, or a run that asked for them and shards."""
    storage = open_storage(store.uri)
    records = store.commit_records()
    names: dict[str, set[tuple[str, str]]] = {
        fingerprint: {(record["model"], record["benchmark"])} for fingerprint, record in records.items()
    }
    for fingerprint, name in _from_paths(path for kind in ("samples", "scores") for path in storage.list(kind)):
        names.setdefault(fingerprint, set()).add(name)
    for path in storage.list("responses"):
        fingerprint = path.split("/")[1].removeprefix("cell=")
        if FINGERPRINT.fullmatch(fingerprint):
            names.setdefault(fingerprint, set())
    for run in store.campaigns():
        for entry in run["models"]:
            for benchmark, fingerprint in entry["cells"].items():
                if fingerprint in names:
                    names[fingerprint].add((entry["model"], benchmark))
    for fingerprint, found in sorted(names.items()):
        yield Stored(fingerprint, tuple(sorted(found)), fingerprint in records)


def _from_paths(paths: Iterable[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    for path in paths:
        parts = path.split("/")
        if len(parts) == 4 and FINGERPRINT.fullmatch(parts[3].removesuffix(".parquet")):
            benchmark, model = parts[1].removeprefix("benchmark="), parts[2].removeprefix("model=")
            yield parts[3].removesuffix(".parquet"), (unquote(model), unquote(benchmark))
