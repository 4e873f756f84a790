"""The results store: response shards while an engine runs, then samples, scores and, last, the cell's commit record.

Layout under the store's URI (docs/results.md)::

    responses/cell=<fingerprint>/<nonce>-<seq>.parquet           raw responses; deleted once the cell is complete
    samples/benchmark=<b>/model=<m>/<fingerprint>.parquet        one row per doc of a task
    scores/benchmark=<b>/model=<m>/<fingerprint>.parquet         one row per task, metric and filter
    cells/<fingerprint>.json                                     commit record: written last, created once
    asked/<digest>/<fingerprint>.json                            cells by what they ask: `core.store.asked`
    campaigns/<campaign>/<run>.json, …/<run>/<model>.json        which cells a run asked for
    timeline/campaign=<c>/run=<r>/<model>-<nonce>.parquet        what a model of a run did when
    leases/<fingerprint>/<generation>.json, holders/<id>.json    the present holder of a cell: `core.store.lease`
    reports/campaign=<c>/<run>.html                              the report of a run, for people
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import StoreError, nearest
from core.request import Response
from core.sample import Cell, Sample, Scoring
from core.storage.open import open_storage
from core.store.asked import read_asked, write_asked
from core.store.commit import commit_cell, parse_record, read_record, record_path, shards_folder
from core.store.quality import LEADERBOARD_COLUMNS, leaderboard_row
from core.store.runs import Runs
from core.store.schema import SAMPLES, SCORES, decode, samples_of
from core.store.shards import ResponseWriter, Sink, compact, read_shards

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FILES_AT_ONCE = 32  # read before their columns are taken out: what a store holds need not fit in memory


def open_store(uri: str | PathLike[str]) -> Store:
    """Return the store at ``s3://bucket/prefix`` or a local directory. Touches nothing; `Store.check` does."""
    return Store(open_storage(fspath(uri)))


def new_run_id() -> str:
    """Name one run of a campaign; later runs sort after earlier ones."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"


class _NamedCell(NamedTuple):
    campaign: str | None  # whose name for it counts; None where no run names it
    model: str
    benchmark: str
    record: dict[str, Any]  # its commit record


class Store(Runs):
    """Cells and campaigns under one URI. Safe to use from several threads and processes at once.

    Every method raises `core.errors.StoreError` where the storage cannot be reached, read or written.
    """

    def check(self) -> None:
        """Write and delete a probe object; a missing local directory is made. Ends within 15 s either way."""
        self._storage.check()

    # Cells

    def is_complete(self, fingerprint: str) -> bool:
        """Whether the cell has its commit record."""
        return self.commit_record(fingerprint) is not None

    def commit_record(self, fingerprint: str) -> dict[str, Any] | None:
        """Return the cell's commit record, or None where it is not complete."""
        return read_record(self._storage, fingerprint)

    def commit_records(self, fingerprints: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return commit records by fingerprint: of all complete cells, or of those asked for that are complete."""
        if fingerprints is None:
            paths = [path for path in self._storage.list("cells") if path.endswith(".json")]
        else:
            paths = [record_path(fingerprint) for fingerprint in sorted(set(fingerprints))]
        found = self._storage.read_many(paths)
        records = [parse_record(self._storage, path, data) for path, data in found.items()]
        return {record["fingerprint"]: record for record in records}

    def responses(self, fingerprint: str) -> dict[str, Response]:
        """Return the stored responses of a cell by request id; where two have one id, one without error.

        A file that is no shard of ours is warned about and left alone.
        """
        return read_shards(self._storage, shards_folder(fingerprint))[0]

    def compact(self, fingerprint: str) -> dict[str, Response]:
        """Return what `responses` does, and merge its shards into few. For the holder of the cell's lease."""
        return compact(self._storage, shards_folder(fingerprint))

    def cells_asking(self, digest: str) -> dict[str, dict[str, Any]]:
        """Return the cells that ask what ``digest`` names, newest first, with how they are answered (`core.store.asked`)."""
        return read_asked(self._storage, digest)

    def write_asked(self, digest: str, fingerprint: str, about: Mapping[str, Any]) -> None:
        """Say that a cell asks what ``digest`` names, before its first response is stored (`core.store.asked`)."""
        write_asked(self._storage, digest, fingerprint, about)

    def writer(
        self, fingerprint: str, rows: int = 512, seconds: float = 30.0, sink: Sink | None = None
    ) -> ResponseWriter:
        """Return a context manager that stores responses in shards of about ``rows``, each at most ``seconds`` late.

        ``sink`` takes them on their way here, if given.
        """
        return ResponseWriter(sink or self._storage, shards_folder(fingerprint), rows, seconds)

    def commit(self, cell: Cell, scoring: Scoring, metadata: Mapping[str, Any]) -> bool:
        """Make ``cell`` complete: samples, scores, record, in this order; then its shards go.

        Returns whether the record is this call's. False means that another run completed the cell, and nothing of this
        call stays. ``metadata`` holds JSON values: where and how long it ran.

        A samples file that is there without a record is adopted where it holds this cell's docs, and its numbers count,
        not this call's. Any other file under that name, and a scores file that does not follow from the samples, is
        reported and replaced.
        """
        return commit_cell(self._storage, cell, scoring, metadata)

    # Reading

    def samples(
        self,
        campaign: str | None = None,
        *,
        columns: Collection[str] | None = None,
        benchmarks: Collection[str] | None = None,
    ) -> pd.DataFrame:
        """Return the samples of the cells that `leaderboard` lists, ``model`` and ``benchmark`` named as there.

        Columns as in `core.store.schema.SAMPLES`; maps come as dicts. A cell with two names has its rows under each. ``columns``
        names those to read besides ``benchmark`` and ``model``: without the texts a million samples fit in memory.
        ``benchmarks`` names those whose samples to read. Raises `core.errors.StoreError` for a column that there is not.
        """
        for column in columns or ():
            if column not in SAMPLES.names:
                raise StoreError(f"samples have no column {column!r}{nearest(column, SAMPLES.names)}")
        return self._named_frame("samples", SAMPLES, campaign, columns, benchmarks)

    def cell_samples(self, fingerprint: str) -> list[Sample]:
        """Return the samples of one complete cell. Raises `core.errors.StoreError` where it is not complete."""
        return samples_of(self._tables("samples", SAMPLES, self._complete([fingerprint]))[fingerprint])

    def samples_of_cells(self, fingerprints: Collection[str], columns: Collection[str] | None = None) -> pd.DataFrame:
        """Return the samples of complete cells, of any campaign; ``fingerprint`` names each row's.

        ``columns`` as in `samples`. Raises `core.errors.StoreError` where one is not complete.
        """
        wanted = None if columns is None else {*columns, "fingerprint"}
        tables = self._tables("samples", SAMPLES, self._complete(fingerprints), wanted)
        return _frame(list(tables.values()), [field for field in SAMPLES if wanted is None or field.name in wanted])

    def scores(self, campaign: str | None = None) -> pd.DataFrame:
        """Return the scores of the cells that `leaderboard` lists, named as there (`core.store.schema.SCORES`)."""
        return self._named_frame("scores", SCORES, campaign)

    def leaderboard(self, campaign: str | None = None) -> pd.DataFrame:
        """Return one row per model and benchmark that is complete (`LEADERBOARD_COLUMNS`).

        ``campaign`` names one campaign, whose newest run counts; without it: the newest run of each, and cells no run
        names. Engine, degrees, speed and reason are those of the run that computed the cell. Raises
        `core.errors.StoreError` for a campaign that the store does not know.
        """
        import pandas as pd

        rows = [leaderboard_row(*named) for named in self._named_cells(campaign)]
        frame = pd.DataFrame(rows, columns=list(LEADERBOARD_COLUMNS))
        return frame.astype(dict.fromkeys(("docs", "tensor_parallel", "pipeline_parallel", "replicas"), "Int64"))

    def _named_cells(self, campaign: str | None) -> list[_NamedCell]:
        """Return the complete cells that `leaderboard` shows."""
        newest = {run["campaign"]: run for run in self.campaigns(campaign)}
        if campaign is not None and campaign not in newest:
            known = sorted({run["campaign"] for run in self.campaigns()})
            names = f"it knows {', '.join(known)}" if known else "it knows none"
            raise StoreError(f"results {self.uri!r}: no campaign {campaign!r}{nearest(campaign, known)}; {names}")
        asked: list[tuple[str | None, str, str, str]] = [
            (name, model["model"], benchmark, fingerprint)
            for name, run in sorted(newest.items(), key=lambda item: item[1]["run"], reverse=True)
            for model in run["models"]
            for benchmark, fingerprint in model["cells"].items()
        ]
        records = self.commit_records([entry[3] for entry in asked] if campaign is not None else None)
        if campaign is None:
            named = {fingerprint for *_, fingerprint in asked}
            unnamed = [record for fingerprint, record in records.items() if fingerprint not in named]
            asked += [(None, record["model"], record["benchmark"], record["fingerprint"]) for record in unnamed]
        cells: dict[tuple[str, str, str], _NamedCell] = {}
        for name, model, benchmark, fingerprint in asked:
            if fingerprint in records:
                cells.setdefault(
                    (model, benchmark, fingerprint), _NamedCell(name, model, benchmark, records[fingerprint])
                )
        return list(cells.values())

    def _named_frame(
        self,
        kind: str,
        schema: pa.Schema,
        campaign: str | None,
        columns: Collection[str] | None = None,
        benchmarks: Collection[str] | None = None,
    ) -> pd.DataFrame:
        import pyarrow as pa

        named = [cell for cell in self._named_cells(campaign) if benchmarks is None or cell.benchmark in benchmarks]
        records = {cell.record["fingerprint"]: cell.record for cell in named}
        read, tables = self._tables(kind, schema, list(records.values()), columns), []
        for cell in named:
            table = read[cell.record["fingerprint"]]
            for name, value in (("model", cell.model), ("benchmark", cell.benchmark)):
                table = table.add_column(0, name, pa.repeat(pa.scalar(value, pa.string()), table.num_rows))
            tables.append(table)
        names = [pa.field("benchmark", pa.string()), pa.field("model", pa.string())]
        return _frame(tables, [*names, *(field for field in schema if columns is None or field.name in columns)])

    def _complete(self, fingerprints: Collection[str]) -> list[dict[str, Any]]:
        records = self.commit_records(fingerprints)
        if missing := next((each for each in fingerprints if each not in records), None):
            raise StoreError(f"results {self.uri!r}: cell {missing} is not complete")
        return [records[fingerprint] for fingerprint in dict.fromkeys(fingerprints)]

    def _tables(
        self, kind: str, schema: pa.Schema, records: Sequence[dict[str, Any]], columns: Collection[str] | None = None
    ) -> dict[str, pa.Table]:
        """Return the tables of complete cells by fingerprint, each file checked against its cell's record."""
        read: dict[str, pa.Table] = {}
        for start in range(0, len(records), FILES_AT_ONCE):
            entries = {each["fingerprint"]: _entry(each, kind) for each in records[start : start + FILES_AT_ONCE]}
            found = self._storage.read_many([entry["path"] for entry in entries.values()])
            for fingerprint, entry in entries.items():
                data = found.get(entry["path"])
                if data is None or hashlib.sha256(data).hexdigest() != entry["sha256"]:
                    raise StoreError(
                        f"results {self.uri!r}: {entry['path']} is not the file its cell was committed with: "
                        f"delete {record_path(fingerprint)} to have the cell computed again"
                    )
                read[fingerprint] = decode(data, schema, columns).replace_schema_metadata()
        return read


def _frame(tables: Sequence[pa.Table], fields: Sequence[pa.Field]) -> pd.DataFrame:
    import pyarrow as pa

    return pa.concat_tables(tables or [pa.schema(fields).empty_table()]).to_pandas(maps_as_pydicts="strict")


def _entry(record: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return next(entry for entry in record["files"] if entry["path"].startswith(f"{kind}/"))
