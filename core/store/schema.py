"""Parquet schemas of the results store, and rows to and from `core.sample` and `core.request`.

Every column is documented beside it here; docs/schema.md is made of that. ``benchmark``
and ``model`` are no columns of the files: they are hive partitions, so that every reader gets them once, from the path.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from operator import attrgetter
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from core.request import Generated, Response, Scored
from core.sample import Cell, Sample, Score

SCHEMA_VERSION = "3"
READABLE = ("1", "2", "3")  # 1 had no reasoning, no dropped_tokens and no images, 2 no faults
VERSION_KEY = b"steelyard.schema"
TABLE_KEY = b"steelyard.table"
ROWS_IN_GROUP = 1 << 16  # of a Parquet file; one is on its way to the storage while the next is made
ROWS_AT_ONCE = 1 << 14  # so that the texts of no array outgrow the 2 GiB it may have

_IDENTITY = [
    pa.field("fingerprint", pa.string(), nullable=False),  # the cell, 64 hex digits
    pa.field("checkpoint", pa.string()),  # digest of what fixes the checkpoint's outputs
    pa.field("revision", pa.string()),  # commit of a hub repository, or a content digest
    pa.field("dtype", pa.string()),  # type the weights were computed in
]

SAMPLES = pa.schema(
    [
        *_IDENTITY,
        pa.field("task", pa.string(), nullable=False),  # lm-eval task; a benchmark that is a group has several
        pa.field("doc_id", pa.int64(), nullable=False),  # position in the task's split
        pa.field("doc", pa.string()),  # the doc as JSON
        pa.field("prompt", pa.string()),  # what the model was given
        pa.field("images", pa.list_(pa.string())),  # SHA-256 of each image's mode, size and pixels; empty for text
        pa.field("choices", pa.list_(pa.string())),  # continuations scored; empty for generation
        pa.field("target", pa.string()),  # the reference, or the right choice's number
        pa.field("texts", pa.list_(pa.string())),  # generated answers, repeats in order; empty for loglikelihood
        pa.field("reasoning", pa.list_(pa.string())),  # what stood before each of texts; empty where no answer has any
        pa.field("logprobs", pa.list_(pa.float64())),  # nats, one per choice; empty for generation
        pa.field("is_greedy", pa.list_(pa.bool_())),  # one per choice
        pa.field("filtered", pa.map_(pa.string(), pa.string())),  # filter → answer after it
        pa.field("metrics", pa.map_(pa.string(), pa.float64())),  # "metric,filter" → this doc's number
        pa.field("value", pa.float64()),  # the primary metric's number; null where it has none per doc
        pa.field("prompt_tokens", pa.int64()),  # of all the doc's requests
        pa.field("completion_tokens", pa.int64()),  # of all its answers
        pa.field("cached_tokens", pa.int64()),  # of the prompt's, those read from the prefix cache
        pa.field("truncated", pa.bool_()),  # an answer stopped at its length limit
        pa.field("dropped_tokens", pa.int64()),  # of the prompts, from the left, to fit the window
        pa.field("error", pa.string()),  # null where the sample was answered and scored
        pa.field("faults", pa.list_(pa.string())),  # of how it was asked, that make its number worth less; mostly empty
    ],
    metadata={VERSION_KEY: SCHEMA_VERSION.encode(), TABLE_KEY: b"samples"},
)

SCORES = pa.schema(
    [
        *_IDENTITY,
        pa.field("task", pa.string(), nullable=False),  # or a group's name
        pa.field("metric", pa.string(), nullable=False),  # what was computed
        pa.field("filter", pa.string(), nullable=False),  # after which filter of the answers
        pa.field("value", pa.float64(), nullable=False),  # the aggregate
        pa.field("stderr", pa.float64()),  # its standard error; null where none is defined
        pa.field("docs", pa.int64(), nullable=False),  # it is over
        pa.field("higher_is_better", pa.bool_(), nullable=False),  # false for perplexity and the like
        pa.field("is_primary", pa.bool_(), nullable=False),  # the one number of its task
        pa.field("is_group", pa.bool_(), nullable=False),  # whether the task is a group
        pa.field("is_headline", pa.bool_(), nullable=False),  # the one number of the benchmark
    ],
    metadata={VERSION_KEY: SCHEMA_VERSION.encode(), TABLE_KEY: b"scores"},
)

RESPONSES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # of the request
        pa.field("kind", pa.string(), nullable=False),  # "generated" or "scored"; the other kind's columns are null
        pa.field("text", pa.string()),  # generated
        pa.field("finish_reason", pa.string()),  # "stop" or "length"
        pa.field("completion_tokens", pa.int64()),  # generated
        pa.field("logprob", pa.float64()),  # of the continuation, in nats
        pa.field("is_greedy", pa.bool_()),  # whether greedy decoding gives the continuation
        pa.field("tokens", pa.int64()),  # of the continuation
        pa.field("truncated", pa.int64()),  # tokens dropped from the left to fit the window
        pa.field("prompt_tokens", pa.int64(), nullable=False),  # the prompt's
        pa.field("cached_tokens", pa.int64(), nullable=False),  # of those, read from the prefix cache
        pa.field("error", pa.string()),  # null where it was answered
    ],
    metadata={VERSION_KEY: SCHEMA_VERSION.encode(), TABLE_KEY: b"responses"},
)

Row = TypeVar("Row")

_KINDS: dict[str, type[Generated] | type[Scored]] = {"generated": Generated, "scored": Scored}
_FIELDS = {kind: [field.name for field in fields(cls)] for kind, cls in _KINDS.items()}


def encode(table: pa.Table) -> bytes:
    """Return ``table`` as a Parquet file. The same rows give the same bytes under one version of pyarrow."""
    return b"".join(encode_parts(table.schema, [table]))


def encode_parts(schema: pa.Schema, tables: Iterable[pa.Table]) -> Iterator[bytes]:
    """Yield the Parquet file of ``tables``, one after another, in pieces: a row group each, then what ends the file.

    Tables of `ROWS_IN_GROUP` rows, but for the last, give the bytes of `encode` of them all.
    """
    sink = _Pieces()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for table in tables:
            for start in range(0, max(1, table.num_rows), ROWS_IN_GROUP):
                writer.write_table(table.slice(start, ROWS_IN_GROUP))
                yield sink.take()
    yield sink.take()


class _Pieces(io.RawIOBase):
    """A file that keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def decode(data: bytes, schema: pa.Schema, columns: Collection[str] | None = None) -> pa.Table:
    """Read a Parquet file of ``schema``; metadata beyond the schema's own is kept. Columns that an older version lacked are null.

    With ``columns`` only those are read, in the schema's order. Raises `ValueError` where it is no Parquet file, another table,
    or of a newer schema version.
    """
    names = None if columns is None else [name for name in schema.names if name in columns]
    try:
        table = pq.read_table(pa.BufferReader(data), columns=names, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"no Parquet file ({error})") from error
    found = table.schema.metadata or {}
    if found.get(TABLE_KEY) != schema.metadata[TABLE_KEY] or found.get(VERSION_KEY, b"").decode() not in READABLE:
        raise ValueError(f"not {schema.metadata[TABLE_KEY].decode()} of schema version {' or '.join(READABLE)}")
    if names is not None:
        schema = pa.schema([schema.field(name) for name in names], schema.metadata)
    if found[VERSION_KEY] != schema.metadata[VERSION_KEY]:
        table = _with_later_columns(table, schema)
    if not table.schema.equals(schema, check_metadata=False):
        raise ValueError("its columns differ from the schema's")
    return table


def _with_later_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in schema:
        if field.name not in table.column_names and field.nullable:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    ordered = [name for name in schema.names if name in table.column_names]
    return table.select(ordered).replace_schema_metadata({**(table.schema.metadata or {}), **(schema.metadata or {})})


def samples_tables(cell: Cell, samples: Iterable[Sample], metadata: Mapping[bytes, bytes]) -> Iterator[pa.Table]:
    """Yield one row per sample, in parts of `ROWS_IN_GROUP` rows; one part where there are none.

    ``metadata`` is added to the schema's.
    """
    schema, identity = SAMPLES.with_metadata({**SAMPLES.metadata, **metadata}), _identity(cell)

    def column(field: pa.Field, rows: Sequence[Sample]) -> pa.Array:
        if field.name in identity:
            return pa.repeat(pa.scalar(identity[field.name], field.type), len(rows))
        return array_of(map(attrgetter("values" if field.name == "metrics" else field.name), rows), field.type)

    listed = list(samples)
    for start in range(0, max(1, len(listed)), ROWS_IN_GROUP):
        yield table_of(listed[start : start + ROWS_IN_GROUP], schema, column)


def samples_of(table: pa.Table) -> list[Sample]:
    """Return the samples of a `SAMPLES` table; what is null has its default."""
    names = [field.name for field in fields(Sample) if field.name in SAMPLES.names and field.name != "filtered"]
    samples = []
    for row in table.to_pylist():
        given: dict[str, Any] = {name: row[name] for name in names if row[name] is not None}
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        samples.append(Sample(**given, filtered=dict(row["filtered"] or ()), values=dict(row["metrics"] or ())))
    return samples


def scores_table(cell: Cell, scores: Iterable[Score], headline: Score) -> pa.Table:
    """Return one row per score. The headline is marked, and added where ``scores`` has no row of its name."""
    identity, head, rows = _identity(cell), score_key(headline), []
    listed = list(scores)
    if head not in map(score_key, listed):
        listed.append(headline)
    for score in listed:
        row = asdict(score)
        row["is_primary"], row["is_group"] = row.pop("primary"), row.pop("group")
        rows.append({**identity, **row, "is_headline": score_key(score) == head})
    return pa.Table.from_pylist(rows, SCORES)


def score_key(score: Score) -> tuple[str, str, str]:
    """Name a score within its cell."""
    return score.task, score.metric, score.filter


def responses_table(responses: Iterable[Response]) -> pa.Table:
    """Return one row per response."""

    def column(field: pa.Field, rows: Sequence[Response]) -> pa.Array:
        if field.name == "kind":
            return pa.array(["generated" if isinstance(row, Generated) else "scored" for row in rows], field.type)
        return pa.array([getattr(row, field.name, None) for row in rows], field.type)

    return table_of(list(responses), RESPONSES, column)


def responses_of(table: pa.Table) -> list[Response]:
    """Return the responses of a `RESPONSES` table. Raises `ValueError` for a kind that there is not."""
    if unknown := set(table["kind"].unique().to_pylist()) - set(_KINDS):
        raise ValueError(f"unknown kinds of response: {sorted(unknown)}")
    return [_response(row) for row in table.to_pylist()]


def _response(row: dict[str, Any]) -> Response:
    given = {name: row[name] for name in _FIELDS[row["kind"]] if row[name] is not None}
    return _KINDS[row["kind"]](**given)


def _identity(cell: Cell) -> dict[str, Any]:
    optional = {name: cell.settings.get(name) for name in ("checkpoint", "revision", "dtype")}
    return {"fingerprint": cell.fingerprint, **{k: None if v is None else str(v) for k, v in optional.items()}}


def table_of(rows: Sequence[Row], schema: pa.Schema, column: Callable[[pa.Field, Sequence[Row]], pa.Array]) -> pa.Table:
    """Return the table whose columns ``column`` makes of some rows at a time: several times as fast as a dict for each row."""
    parts = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
    batches = [pa.record_batch([column(field, part) for field in schema], schema=schema) for part in parts]
    return pa.Table.from_batches(batches, schema)


def array_of(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
    """Return an array. Maps are given as mappings, none of them None."""
    return pa.array([list(value.items()) for value in values] if pa.types.is_map(kind) else list(values), kind)
