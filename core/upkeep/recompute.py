"""Cells that are computed again: invalidated whole, reopened so that only what was not answered is asked, or scored anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from core.benchmark.prepare import prepare_cell
from core.campaign import CampaignSpec, benchmark_label
from core.cell_work import CellWork
from core.compare.adaptive import doc_of_sample, of_docs
from core.errors import StoreError, UserError, nearest
from core.log import log
from core.model.placement import Plan, PlannedModel
from core.model.weights import fetch_checkpoint
from core.results import Store, open_store
from core.sample import Scoring
from core.storage.open import open_storage
from core.storage.storage import Storage
from core.store.asked import forget_asked
from core.store.commit import FINGERPRINT, record_path, shards_folder
from core.store.quality import facts_of, warn_of_faults
from core.store.shards import own_shards
from core.upkeep.status import CellStatus, living_leases, statuses


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
    found = cells = list(_all_cells(store))
    for place, (what, value) in enumerate((("model", model), ("benchmark", benchmark))):
        known = {names[place] for cell in cells for names in cell.names}
        if value is not None and value not in known:
            names = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise UserError(f"{what} {value!r}: no cell of {store.uri} has that name{nearest(value, known)}; {names}")
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
    """Remove a cell from the store: its record first, so that no reader finds one whose files are gone.

    Without ``keep_responses`` nobody finds its answers any more, nor those of cells that asked the same. Raises
    `core.errors.StoreError` where it is being computed.
    """
    if lease := living_leases(storage).get(fingerprint):
        raise StoreError(
            f"cell {fingerprint[:12]} is being computed since {lease.since} by {lease.about or lease.holder}: "
            "wait for its end, or cancel that campaign"
        )
    storage.delete([record_path(fingerprint)])
    tables = (path for kind in ("samples", "scores") for path in storage.list(kind))
    storage.delete(path for path in tables if path.endswith(f"/{fingerprint}.parquet"))
    if not keep_responses:
        forget_asked(storage, fingerprint)
        storage.delete(own_shards(storage, shards_folder(fingerprint)))


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


@dataclass(frozen=True)
class Failed:
    """The failures of a campaign's last run: ``models`` to evaluate again, and ``cells`` that are complete but for some docs."""

    models: tuple[str, ...]
    cells: tuple[CellStatus, ...]


def find_failed(spec: CampaignSpec) -> Failed:
    """Return the failures of the campaign's last run. Raises `core.errors.UserError` where the store knows of no run."""
    store = open_store(spec.results)
    runs = store.campaigns(spec.name)
    if not runs:
        raise UserError(f"campaign {spec.name!r} has no run in {store.uri}: use steelyard run")
    rows = [row for row in statuses(store, spec.name, spec) if row.model in {model.name for model in spec.models}]
    failed = [row for row in rows if row.state in ("failed", "begun") or row.failed_samples]
    # A judge's failure is in no cell of its own.
    names = {row.model for row in failed} | set(runs[-1].get("failures", {}))
    models = tuple(model.name for model in spec.models if model.name in names)
    return Failed(models, tuple(row for row in failed if row.failed_samples))


def reopen(spec: CampaignSpec, plan: Plan, failed: Failed) -> None:
    """Remove the records of cells with failed samples; the next run of the campaign asks what was not answered.

    Verdicts of judges stay as they are, and so does a cell that the spec would no longer ask for.
    """
    store = open_store(spec.results)
    for row in failed.cells:
        planned = next(each for each in plan.models if each.model.name == row.model)
        benchmark = next((each for each in spec.benchmarks if benchmark_label(each) == row.benchmark), None)
        work = None if benchmark is None else prepare_cell(spec, planned, _weights(planned), benchmark)
        if work is None or work.cell.fingerprint != row.fingerprint:
            log.warning(
                f"{row.model} · {row.benchmark}: {row.failed_samples} failed samples stay: the spec asks otherwise now"
            )
            continue
        answered = work.benchmark.recall(store.cell_samples(row.fingerprint))
        with store.writer(row.fingerprint) as writer:
            for response in answered.values():
                writer.add(response)
        invalidate(open_storage(spec.results), row.fingerprint, keep_responses=True)


def _weights(planned: PlannedModel) -> Path:
    # Without a chat template nothing of the checkpoint's files is needed.
    if not planned.model.chat_template:
        return Path(planned.checkpoint.source)
    return fetch_checkpoint(planned.checkpoint, weights=False)


def rescore(store: Store, work: CellWork, donor: Mapping[str, Any]) -> bool:
    """Score the stored samples of ``donor``'s cell as ``work``'s, and commit that. Returns whether the record is this call's.

    ``donor`` is its commit record. What the responses took to get stays in the new one, with the fingerprint of the cell they were
    computed for.
    """
    samples = store.cell_samples(donor["fingerprint"])
    scoring = of_docs(work.benchmark.score(work.benchmark.recall(samples)), map(doc_of_sample, samples))
    warn_of_faults(work.label, scoring)
    origin = donor["metadata"].get("rescored_from", donor["fingerprint"])
    metadata = {**rescored_metadata(donor["metadata"], scoring), "rescored_from": origin}
    return store.commit(work.cell, scoring, metadata)


def rescored_metadata(metadata: Mapping[str, Any], scoring: Scoring) -> dict[str, Any]:
    """Return the metadata of answers with what a new scoring says of them."""
    return {**metadata, "repeats": None, "lost": None, "remark": "", **facts_of(scoring)}
