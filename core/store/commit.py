"""The commit of a cell: samples, scores and, last, its commit record; then the removal of what it no longer needs.

A samples file carries in its Parquet metadata everything else its cell's commit needs, so that a writer that finds one without a
record (its own writer died, or is a little behind) finishes that commit: samples, scores and record stem from one scoring.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from core.errors import StoreError
from core.sample import Cell, Score, Scoring
from core.storage.storage import Storage, path_part
from core.store.schema import (
    READABLE,
    SAMPLES,
    SCHEMA_VERSION,
    SCORES,
    decode,
    encode_parts,
    samples_tables,
    scores_table,
)
from core.store.shards import own_shards

FINGERPRINT = re.compile(r"[0-9a-f]{64}")
COMMIT_KEY = b"steelyard.commit"

log = logging.getLogger("steelyard.results")


def record_path(fingerprint: str) -> str:
    """Path of a cell's commit record."""
    return f"cells/{checked(fingerprint)}.json"


def shards_folder(fingerprint: str) -> str:
    """Folder of a cell's response shards."""
    return f"responses/cell={checked(fingerprint)}"


def checked(fingerprint: str) -> str:
    """Return ``fingerprint`` if it can name a cell. Raises `core.errors.StoreError`."""
    if not FINGERPRINT.fullmatch(fingerprint):
        raise StoreError(f"fingerprint {fingerprint!r}: a cell is named by 64 hex digits")
    return fingerprint


def parse_record(storage: Storage, path: str, data: bytes) -> dict[str, Any]:
    """Return the commit record in ``data``. Raises `core.errors.StoreError` where it is none, or another version's."""
    try:
        record = json.loads(data)
        version = record["schema"]
        fingerprint = record["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"results {storage.uri!r}: {path} is no commit record: delete it") from error
    if version not in READABLE or path != record_path(fingerprint):
        raise StoreError(
            f"results {storage.uri!r}: {path} has schema version {version!r} and this Steelyard reads "
            f"{SCHEMA_VERSION!r}: use the version that wrote it, or another results URI"
        )
    return record


def read_record(storage: Storage, fingerprint: str) -> dict[str, Any] | None:
    """Return a cell's commit record, or None where it is not complete."""
    path = record_path(fingerprint)
    data = storage.read(path)
    return None if data is None else parse_record(storage, path, data)


def commit_cell(storage: Storage, cell: Cell, scoring: Scoring, metadata: Mapping[str, Any]) -> bool:
    """See `core.results.Store.commit`."""
    if read_record(storage, cell.fingerprint) is not None:
        _sweep(storage, cell.fingerprint)
        return False
    folder = f"benchmark={path_part(cell.benchmark)}/model={path_part(cell.model)}/{cell.fingerprint}.parquet"
    draft = {
        "settings": cell.settings,
        "scores": [asdict(score) for score in scoring.scores],
        "headline": asdict(scoring.headline),
        "metadata": dict(metadata),
    }
    ours = _Parts(samples_tables(cell, scoring.samples, {COMMIT_KEY: json.dumps(draft).encode()}))
    samples, samples_file = _put_table(storage, f"samples/{folder}", ours, SAMPLES, _samples_problem)
    draft = json.loads(samples.schema.metadata[COMMIT_KEY])
    cell, headline = replace(cell, settings=draft["settings"]), Score(**draft["headline"])
    scores = scores_table(cell, [Score(**score) for score in draft["scores"]], headline)
    scores, scores_file = _put_table(storage, f"scores/{folder}", _Parts([scores]), SCORES, _scores_problem)
    record = {
        "schema": SCHEMA_VERSION,
        "fingerprint": cell.fingerprint,
        "model": cell.model,
        "benchmark": cell.benchmark,
        "settings": cell.settings,
        "headline": _json_safe(asdict(headline)),
        "metadata": draft["metadata"],
        "files": [
            {"path": f"samples/{folder}", "rows": samples.num_rows, **samples_file.entry},
            {"path": f"scores/{folder}", "rows": scores.num_rows, **scores_file.entry},
        ],
        "committed": datetime.now(UTC).isoformat(timespec="seconds"),
        "nonce": secrets.token_hex(16),  # so that no two calls' records are alike
    }
    is_ours = storage.put_new(record_path(cell.fingerprint), json.dumps(record, indent=2).encode())
    _sweep(storage, cell.fingerprint)
    return is_ours


class _Parts:
    """A table in parts that are made when they are first asked for, and kept."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._coming = iter(tables)
        self._made: list[pa.Table] = []

    def __iter__(self) -> Iterator[pa.Table]:
        yield from self._made
        for table in self._coming:
            self._made.append(table)
            yield table

    @property
    def whole(self) -> pa.Table:
        return pa.concat_tables(self)


class _File:
    """Size and digest of what passed through last."""

    def of(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        """Pass ``parts`` on."""
        self._bytes, self._digest = 0, hashlib.sha256()
        for part in parts:
            self._bytes += len(part)
            self._digest.update(part)
            yield part

    @property
    def entry(self) -> dict[str, Any]:
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


def _put_table(
    storage: Storage, path: str, parts: _Parts, schema: pa.Schema, problem: Callable[[pa.Table, pa.Table], str | None]
) -> tuple[pa.Table, _File]:
    """Create ``path``, or adopt what is there unless ``problem`` names one. Returns the table stored and its file."""
    file = _File()
    for _ in range(3):
        if storage.put_new_parts(path, lambda: file.of(encode_parts(next(iter(parts)).schema, parts))):
            return parts.whole, file
        existing = storage.read(path)
        if existing is None:
            continue
        try:
            found = decode(existing, schema)
            wrong = problem(found, parts.whole)
        except ValueError as error:
            wrong = str(error)
        if wrong is None:
            log.info("%s/%s was there without a commit record and is adopted", storage.uri, path)
            list(file.of([existing]))
            return found, file
        log.warning("%s/%s was there without a commit record and is replaced: %s", storage.uri, path, wrong)
        storage.delete([path])
    raise StoreError(f"results {storage.uri!r}: other writers keep changing {path}: stop them or run again")


def _sweep(storage: Storage, fingerprint: str) -> None:
    """Delete the shards of a complete cell, and the files of a run that lost the race under another name."""
    try:
        record = read_record(storage, fingerprint)
        kept = {entry["path"] for entry in record["files"]} if record else set()
        if not kept:
            return
        stale = own_shards(storage, shards_folder(fingerprint))
        for kind in ("samples", "scores"):
            ending = f"/{fingerprint}.parquet"
            stale += [path for path in storage.list(kind) if path.endswith(ending) and path not in kept]
        storage.delete(stale)
    except StoreError as error:
        log.warning("cell %s is complete, but what it no longer needs stays: %s", fingerprint, error)


def _samples_problem(found: pa.Table, ours: pa.Table) -> str | None:
    if COMMIT_KEY not in found.schema.metadata:
        return "it does not carry its scores"

    def keys(table: pa.Table) -> list[tuple[Any, ...]]:
        return sorted(zip(*(table[name].to_pylist() for name in ("fingerprint", "task", "doc_id")), strict=True))

    return None if keys(found) == keys(ours) else "it holds other docs"


def _scores_problem(found: pa.Table, ours: pa.Table) -> str | None:
    return None if found.equals(ours) else "it does not follow from the samples"


def _json_safe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put null for NaN and infinity, which JSON has no way to write."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
