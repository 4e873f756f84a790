"""Timelines as Parquet beside the results: one row per span, one file per model's part of a run."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Sequence

import pyarrow as pa

from core.monitor.timeline import Span
from core.storage.storage import Storage, path_part
from core.store.schema import SCHEMA_VERSION, TABLE_KEY, VERSION_KEY, decode, encode

log = logging.getLogger("steelyard.results")

_TIME = pa.timestamp("us", tz="UTC")
TIMELINE = pa.schema(
    [
        pa.field("host", pa.string(), nullable=False),  # whose clock it is
        pa.field("model", pa.string(), nullable=False),  # whose spans they are
        pa.field("part", pa.string(), nullable=False),  # benchmarks, judge or canary
        pa.field("engine", pa.string(), nullable=False),  # lightweight or distributed
        pa.field("phase", pa.string(), nullable=False),  # core.monitor.timeline.PHASES, or PLAN
        pa.field("benchmark", pa.string(), nullable=False),  # empty where it is not of one benchmark
        pa.field("started", _TIME, nullable=False),  # by the host's clock
        pa.field("ended", _TIME, nullable=False),  # alike
    ],
    metadata={VERSION_KEY: SCHEMA_VERSION.encode(), TABLE_KEY: b"timeline"},
)


def timeline_folder(campaign: str, run: str | None = None) -> str:
    """Folder of a run's timeline, or of all of a campaign's."""
    folder = f"timeline/campaign={path_part(campaign)}"
    return folder if run is None else f"{folder}/run={path_part(run)}"


def timeline_table(spans: Sequence[Span], host: str) -> pa.Table:
    """Return one row per span."""
    texts = [[getattr(span, name) for span in spans] for name in TIMELINE.names[1:-2]]
    columns = [pa.array([host] * len(spans), pa.string()), *(pa.array(text, pa.string()) for text in texts)]
    for name in ("started", "ended"):
        columns.append(pa.array([round(getattr(span, name) * 1e6) for span in spans], pa.int64()).cast(_TIME))
    return pa.Table.from_arrays(columns, schema=TIMELINE)


def spans_of(table: pa.Table) -> list[Span]:
    """Return the spans of a `TIMELINE` table."""
    rows = table.drop_columns(["host", "started", "ended"]).to_pylist()
    times = [table[name].cast(pa.int64()).to_pylist() for name in ("started", "ended")]
    return [
        Span(**row, started=started / 1e6, ended=ended / 1e6) for row, started, ended in zip(rows, *times, strict=True)
    ]


def write_spans(storage: Storage, campaign: str, run: str, spans: Sequence[Span]) -> None:
    """Store ``spans``, all of one model, in a file of their own. Raises `core.errors.StoreError`."""
    if not spans:
        return
    name = f"{path_part(spans[0].model)}-{secrets.token_hex(8)}.parquet"
    storage.put_new(f"{timeline_folder(campaign, run)}/{name}", encode(timeline_table(spans, socket.gethostname())))


def read_spans(storage: Storage, campaign: str, run: str | None = None) -> list[Span]:
    """Return the spans of a run, or of the campaign's newest that has any, in order of time.

    A file that is none of ours is warned about and left out. Raises `core.errors.StoreError`.
    """
    paths = storage.list(timeline_folder(campaign, run))
    if run is None:
        newest = max((path.split("/")[2] for path in paths), default="")
        paths = [path for path in paths if path.split("/")[2] == newest]
    spans: list[Span] = []
    for path, data in storage.read_many(paths).items():
        try:
            spans += spans_of(decode(data, TIMELINE))
        except ValueError as error:
            log.warning("%s/%s is not used: %s", storage.uri, path, error)
    return sorted(spans, key=lambda span: (span.started, span.ended))
