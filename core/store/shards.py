"""Response shards: written while an engine runs, read back, and merged into few."""

from __future__ import annotations

import logging
import re
import secrets
import threading
from typing import Protocol

from core.errors import StoreError
from core.request import Response
from core.storage.storage import Storage
from core.store.schema import RESPONSES, decode, encode, responses_of, responses_table

SHARD_NAME = re.compile(r"[0-9a-f]{16}-[0-9]{5,}\.parquet")

MOST_WAITING = 16  # shards whose rows may be in memory
COMPACT_FROM = 32  # shards of a cell; that many are read back in about the time one takes to be made of them
ROWS_OF_COMPACTED = 1 << 16

log = logging.getLogger("steelyard.results")


def own_shards(storage: Storage, folder: str) -> list[str]:
    """Return the paths of the shards below a folder; what else lies there is left alone."""
    return [path for path in storage.list(folder) if SHARD_NAME.fullmatch(path.rsplit("/", 1)[1])]


def read_shards(storage: Storage, folder: str) -> tuple[dict[str, Response], list[str]]:
    """Return the responses in a folder of shards by request id, and the shards they are in.

    Where two have one id, one without error counts. A file that is no shard of ours is warned about and left alone.
    """
    kept: dict[str, Response] = {}
    used = []
    for path, data in storage.read_many(storage.list(folder)).items():
        try:
            shard = responses_of(decode(data, RESPONSES))
        except ValueError as error:
            log.warning("%s/%s is not used: %s", storage.uri, path, error)
            continue
        used.append(path)
        for response in shard:
            if response.id not in kept or kept[response.id].error is not None:
                kept[response.id] = response
    return kept, [path for path in used if SHARD_NAME.fullmatch(path.rsplit("/", 1)[1])]


def compact(storage: Storage, folder: str) -> dict[str, Response]:
    """Return the responses of `read_shards`, many shards of theirs replaced by few large ones.

    The old go last: a reader finds each row once or twice.
    """
    kept, shards = read_shards(storage, folder)
    if len(shards) >= COMPACT_FROM:
        nonce, responses = secrets.token_hex(8), list(kept.values())
        for number, start in enumerate(range(0, len(responses), ROWS_OF_COMPACTED)):
            data = encode(responses_table(responses[start : start + ROWS_OF_COMPACTED]))
            storage.put_new(f"{folder}/{nonce}-{number:05d}.parquet", data)
        storage.delete(shards)
    return kept


class Sink(Protocol):
    """A place for shards: a `core.storage.storage.Storage`, or a `core.store.spool.Spool` before one."""

    def put_new(self, path: str, data: bytes) -> bool:
        """See `core.storage.storage.Storage.put_new`."""
        ...


class ResponseWriter:
    """Stores responses in shards from a thread of its own, so that the engine waits only where a store lags far behind.

    A shard is written once ``rows`` are there or ``seconds`` have passed, and at exit, also when an exception passes.
    While the storage fails, rows are kept and tried again with the next shard; leaving the block raises
    `core.errors.StoreError` where rows could not be stored, unless another exception is on its way already.
    """

    def __init__(self, sink: Sink, folder: str, rows: int, seconds: float) -> None:
        self._sink, self._folder = sink, folder
        self._failure: StoreError | None = None
        self._rows, self._seconds = rows, seconds
        self._nonce = secrets.token_hex(8)
        self._shards = 0
        self._waiting: list[Response] = []
        self._change = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._flush_in_time, name="steelyard-shards", daemon=True)

    def __enter__(self) -> ResponseWriter:
        self._thread.start()
        return self

    def add(self, response: Response) -> None:
        """Queue one response. Waits where too many wait already; raises `core.errors.StoreError` where those cannot be stored."""
        with self._change:
            self._change.wait_for(lambda: self._failure or len(self._waiting) < MOST_WAITING * self._rows)
            if self._failure and len(self._waiting) >= MOST_WAITING * self._rows:
                raise self._failure
            self._waiting.append(response)
            if len(self._waiting) >= self._rows:
                self._change.notify_all()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join()
        try:
            self._flush()
        except StoreError as failure:
            if kind is None:
                raise
            log.warning("%d responses are lost: %s", len(self._waiting), failure)

    def _flush_in_time(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closing or len(self._waiting) >= self._rows, self._seconds)
                if self._closing:
                    return
            try:
                self._flush()
            except StoreError as failure:
                log.warning("responses wait for the storage: %s", failure)
                with self._change:
                    self._failure = failure
                    self._change.notify_all()
                    self._change.wait_for(lambda: self._closing, self._seconds)

    def _flush(self) -> None:
        """Write what waits as one shard. One thread at a time: the writer's own, then the one that leaves the block."""
        with self._change:
            batch = list(self._waiting)
        if not batch:
            return
        self._sink.put_new(f"{self._folder}/{self._nonce}-{self._shards:05d}.parquet", encode(responses_table(batch)))
        self._shards += 1
        with self._change:
            del self._waiting[: len(batch)]
            self._failure = None
            self._change.notify_all()
