"""Readings of GPUs, host and engines as Parquet beside the results: one row per number, a few files per model and run."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence

import pyarrow as pa

from core.errors import StoreError
from core.monitor.readings import Reading
from core.storage.storage import Storage, path_part
from core.store.schema import SCHEMA_VERSION, TABLE_KEY, VERSION_KEY, decode, encode

FILE_SECONDS = 60.0
UNSENT_FILES = 60  # kept while the storage fails: an hour's

log = logging.getLogger("steelyard.monitor")

MONITOR = pa.schema(
    [
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),  # of the reading
        pa.field("host", pa.string(), nullable=False),  # that read it
        pa.field("model", pa.string(), nullable=False),  # that was evaluated meanwhile
        pa.field("source", pa.string(), nullable=False),  # gpu, host, engine or ray
        pa.field("device", pa.string(), nullable=False),  # a GPU's index or UUID, an engine's process id, …
        pa.field("metric", pa.string(), nullable=False),  # docs/monitoring.md lists them with their units
        pa.field("value", pa.float64(), nullable=False),  # in the metric's unit
    ],
    metadata={VERSION_KEY: SCHEMA_VERSION.encode(), TABLE_KEY: b"monitor"},
)


def monitor_table(readings: Sequence[Reading], host: str, model: str) -> pa.Table:
    """Return one row per reading."""
    count = len(readings)
    columns = [
        pa.array([round(reading.time * 1e6) for reading in readings], pa.int64()).cast(MONITOR.field("time").type),
        pa.array([host] * count, pa.string()),
        pa.array([model] * count, pa.string()),
        *(pa.array([getattr(r, name) for r in readings], pa.string()) for name in ("source", "device", "metric")),
        pa.array([reading.value for reading in readings], pa.float64()),
    ]
    return pa.Table.from_arrays(columns, schema=MONITOR)


def monitor_folder(campaign: str, run: str | None = None) -> str:
    """Folder of a run's readings, or of all of a campaign's."""
    folder = f"monitor/campaign={path_part(campaign)}"
    return folder if run is None else f"{folder}/run={path_part(run)}"


def monitor_path(campaign: str, run: str, model: str, nonce: str, seq: int) -> str:
    """Path of the file number ``seq`` that one writer, told by its ``nonce``, makes."""
    return f"{monitor_folder(campaign, run)}/{path_part(model)}-{nonce}-{seq:05d}.parquet"


def read_monitor(storage: Storage, campaign: str, run: str | None = None) -> pa.Table:
    """Return a run's rows, or all of a campaign's, of every model and in order of time.

    A file that is none of ours is warned about and left out. Raises `core.errors.StoreError`.
    """
    tables = [MONITOR.empty_table()]
    for path, data in storage.read_many(storage.list(monitor_folder(campaign, run))).items():
        try:
            tables.append(decode(data, MONITOR))
        except ValueError as error:
            log.warning("%s/%s is not used: %s", storage.uri, path, error)
    return pa.concat_tables(tables).sort_by("time")


class MonitorWriter:
    """A sink of `core.monitor.readings.Monitor` that stores a file about every ``seconds``, and the rest at exit.

    While the storage fails, that is a warning and files are kept for the next try; at exit, what could not be stored is lost.
    """

    def __init__(
        self,
        storage: Storage,
        campaign: str,
        run: str,
        model: str,
        seconds: float = FILE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._campaign, self._run, self._model = campaign, run, model
        self._host = socket.gethostname()
        self._nonce = secrets.token_hex(8)
        self._seconds, self._clock = seconds, clock
        self._written = clock()
        self._files = 0
        self._waiting: list[Reading] = []
        self._unsent: dict[str, bytes] = {}  # by path; a try that failed may have landed, and the same name finds out
        self._lock = threading.Lock()

    def __enter__(self) -> MonitorWriter:
        return self

    def __call__(self, readings: Sequence[Reading]) -> None:
        """Keep readings, and write them now and then in the caller's thread."""
        with self._lock:
            self._waiting += readings
            if self._clock() - self._written >= self._seconds:
                self._write()

    def __exit__(self, *_: object) -> None:
        if not self._lock.acquire(timeout=1.0):  # the monitor's thread hangs in the storage and was left behind
            log.warning("results %r: readings of %s are lost", self._storage.uri, self._model)
            return
        try:
            self._write()
            if self._unsent:
                log.warning(
                    "results %r: %d files of readings of %s are lost", self._storage.uri, len(self._unsent), self._model
                )
        finally:
            self._lock.release()

    def _write(self) -> None:
        self._written = self._clock()
        if self._waiting:
            path = monitor_path(self._campaign, self._run, self._model, self._nonce, self._files)
            self._unsent[path] = encode(monitor_table(self._waiting, self._host, self._model))
            self._files += 1
            self._waiting = []
        try:
            for path in list(self._unsent):
                self._storage.put_new(path, self._unsent[path])
                del self._unsent[path]
        except StoreError as error:
            log.warning("readings wait for the storage: %s", error)
        while len(self._unsent) > UNSENT_FILES:
            del self._unsent[next(iter(self._unsent))]
