"""A local folder that takes response shards while the results store does not.

A spool lies under `spool_root` in a folder of its own, one for each model's part of a run, and only from the first shard on that
the store did not take. Its files are named as they will be in the store; ``spool.json`` beside them says which store that is.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from tenacity import RetryCallState, Retrying, retry_if_result, wait_exponential

from core.errors import StoreError, StoreUnreachableError, UserError
from core.redact import redact
from core.storage.local import LocalStorage
from core.storage.open import open_storage
from core.storage.retry import FIRST_WAIT, LONGEST_WAIT, WAITS
from core.storage.storage import Storage
from core.store.commit import shards_folder
from core.store.lease import process_is_gone, this_process
from core.store.shards import own_shards

NOTE = "spool.json"
MB = 10**6

log = logging.getLogger("steelyard.results")


@dataclass(frozen=True)
class SpoolPlan:
    """Where a spool may lie, how many bytes it may take, and how long a store that is away is waited for, in seconds."""

    root: Path
    limit_bytes: float
    patience: float


def spool_root(folder: str | None) -> Path:
    """Return the folder that spools lie in: the one named, or this user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return (Path(folder) if folder else cache / "steelyard" / "spool").expanduser().absolute()


class Spool:
    """A sink of shards for ``storage``, straight there or by a local folder. Safe to use from several threads.

    A shard that the store does not take is spooled, and so are all after it until the store has taken what is spooled; that is
    tried in a thread, at growing intervals. Where the folder is full, or its disk is, `put_new` waits.
    """

    def __init__(self, storage: Storage, plan: SpoolPlan, about: Mapping[str, Any]) -> None:
        self._storage, self._plan, self._about = storage, plan, dict(about)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{about.get('model', 'model')}-{secrets.token_hex(4)}"
        self.folder = plan.root / name
        self._local = LocalStorage(self.folder)
        self._change = threading.Condition(threading.RLock())
        self._backlog: dict[str, int] = {}  # path → bytes, oldest first
        self._uploading: str | None = None
        self._thread: threading.Thread | None = None
        self._ending = self._hurried = False
        self._away_since: float | None = None
        self._last: StoreError | None = None  # why the store did not take the latest
        self._trouble: str | None = None  # why the folder does not take more

    def put_new(self, path: str, data: bytes) -> bool:
        """Have ``path`` created in the store, now or later. Returns once it is there or on the local disk.

        Raises `core.errors.StoreError` where neither takes it, and the store refuses or was waited for long enough.
        """
        retrying = Retrying(
            retry=retry_if_result(lambda taken: taken is None),
            wait=WAITS,
            sleep=self._await_change,
            stop=lambda _: self._left() <= 0,
            retry_error_callback=self._give_up,
        )
        return retrying(self._put_or_keep, path, data) is True

    def forget(self, fingerprint: str) -> None:
        """Drop what is spooled of a cell that is complete now."""
        folder = f"{shards_folder(fingerprint)}/"
        with self._change:
            dropped = [path for path in self._backlog if path.startswith(folder)]
            under_way = self._uploading if self._uploading in dropped else None
            for path in dropped:
                self._drop(path)
            self._change.wait_for(lambda: under_way is None or self._uploading != under_way)
        if under_way is not None:
            try:
                self._storage.delete([under_way])
            except StoreError as error:
                log.warning("%s stays until garbage is collected: %s", under_way, error)

    def drain(self) -> None:
        """Wait until the store has everything. Raises `core.errors.StoreError` with the folder where it stays away."""
        with self._change:
            while self._backlog:
                left = self._left()
                if left <= 0:
                    self._give_up()
                self._change.wait(left)

    def hurry(self) -> None:
        """Have nothing wait for the store any more."""
        with self._change:
            self._hurried = True
            self._change.notify_all()

    def close(self) -> str | None:
        """End trying. Returns the folder where something is left in it, and removes it where nothing is."""
        with self._change:
            self._ending = True
            self._change.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()
        if self._backlog:
            return str(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        return None

    def _put_or_keep(self, path: str, data: bytes) -> bool | None:
        """Put a shard into the store, or else into the folder; None where neither takes it."""
        # What is spooled goes first, or every writer would ask a store that comes and goes.
        if not self._backlog:
            try:
                taken = self._storage.put_new(path, data)
            except StoreError as error:
                self._miss(error)
            else:
                self._is_back()
                return taken
        return self._keep(path, data) or None

    def _await_change(self, seconds: float) -> None:
        with self._change:
            self._change.wait(min(seconds, self._left()))

    def _await_end(self, seconds: float) -> None:
        with self._change:
            self._change.wait_for(lambda: self._ending, seconds)

    def _keep(self, path: str, data: bytes) -> bool:
        """Write a shard to the folder; False where it does not fit."""
        with self._change:
            if sum(self._backlog.values()) + len(data) > self._plan.limit_bytes:
                self._log_trouble(f"it is full (policy.spool_gb = {self._plan.limit_bytes / 1e9:g})")
                return False
            try:
                if not self._backlog:
                    self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    note = {"schema": "1", **this_process(), **self._about, "results": self._storage.uri}
                    self._local.put(NOTE, json.dumps(note, indent=2).encode())
                self._local.put_new(path, data)
            except (StoreError, OSError) as error:
                cause = error if isinstance(error, OSError) else error.__cause__
                reason = cause.strerror if isinstance(cause, OSError) else str(error)
                self._log_trouble(f"{reason}: free space there, or name another folder in policy.spool")
                return False
            self._trouble = None
            self._backlog[path] = len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._upload, name="steelyard-spool", daemon=True)
                self._thread.start()
            return True

    def _upload(self) -> None:
        self._await_end(FIRST_WAIT)  # the store has just not answered
        waits = wait_exponential(multiplier=2 * FIRST_WAIT, max=LONGEST_WAIT)
        retrying = Retrying(retry=retry_if_result(lambda done: not done), wait=waits, sleep=self._await_end)
        retrying(self._upload_all)

    def _upload_all(self) -> bool:
        """Upload until nothing is left, unless trying has ended; False where the store takes no more."""
        if self._ending:
            return True
        while True:
            with self._change:
                path = self._uploading = next(iter(self._backlog), None)
                if path is None:
                    self._thread = None
                    return True
            try:
                if (data := self._local.read(path)) is not None:  # else it was forgotten just now
                    self._storage.put_new(path, data)
            except StoreError as error:
                with self._change:
                    self._uploading, self._last = None, error
                    self._change.notify_all()
                return False
            with self._change:
                self._uploading = None
                self._away_since = time.monotonic()
                self._drop(path)

    def _drop(self, path: str) -> None:
        if self._backlog.pop(path, None) is not None:
            self._local.delete([path])
        if not self._backlog:
            self._is_back()
        self._change.notify_all()

    def _is_back(self) -> None:
        with self._change:
            if self._away_since is not None:
                log.info("the results store answers again")
            self._away_since = self._trouble = self._last = None

    def _miss(self, error: StoreError) -> None:
        with self._change:
            self._last = error
            if self._away_since is None:
                self._away_since = time.monotonic()
                log.warning("answers go to %s until the results store takes them: %s", self.folder, error)

    def _left(self) -> float:
        """Seconds that the store is still waited for: none where it does answer, and refuses."""
        if self._hurried or (self._last is not None and not isinstance(self._last, StoreUnreachableError)):
            return 0.0
        since = self._away_since
        return self._plan.patience if since is None else since + self._plan.patience - time.monotonic()

    def _log_trouble(self, trouble: str) -> None:
        if self._trouble is None:
            log.warning("spool %s takes no more, generation waits: %s", self.folder, trouble)
        self._trouble = trouble

    def _give_up(self, _: RetryCallState | None = None) -> NoReturn:
        trouble = f"; spool {str(self.folder)!r} takes no more: {self._trouble}" if self._trouble else ""
        if self._last is not None and not isinstance(self._last, StoreUnreachableError):
            raise StoreError(f"{self._last}{trouble}")
        away = 0.0 if self._away_since is None else time.monotonic() - self._away_since
        waited = f"waited {away:.0f} s for the results store (policy.store_patience_seconds)"
        raise StoreError(f"{waited}: {self._last}{trouble}")


def how_to_upload(folder: str) -> str:
    """Return what to do about a spool that is left."""
    return f"answers that it did not take are in {folder!r}: once it answers, run steelyard upload {folder}"


def left_behind(root: Path, results: str) -> Iterator[Path]:
    """Yield this user's spools under ``root`` whose process on this machine is gone and whose store is ``results``."""
    for note in sorted(root.glob(f"*/{NOTE}")):
        try:
            if {note.stat().st_uid, note.parent.stat().st_uid} != {os.getuid()}:
                continue  # where all may write, anybody could have numbers stored
            data = note.read_bytes()
            if json.loads(data)["results"] == results and process_is_gone(data):
                yield note.parent
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is not used: no spool (%s)", redact(str(note)), error)


def upload(folder: Path) -> int:
    """Bring a spool, or every one in a folder of them, into its store; what is there goes from the disk. Returns how many shards.

    Raises `core.errors.UserError` where there is no spool, or its campaign is still at work, and `core.errors.StoreError` where the
    store does not take it; what it took is gone from the disk then.
    """
    notes = [folder / NOTE] if (folder / NOTE).is_file() else sorted(folder.glob(f"*/{NOTE}"))
    if not notes:
        raise UserError(f"{str(folder)!r} is no spool: name the folder that the campaign said")
    return sum(_upload_one(note) for note in notes)


def _upload_one(note: Path) -> int:
    try:
        data = note.read_bytes()
        content = json.loads(data)
        results, pid, machine = content["results"], content["pid"], content["machine"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(note)!r} is no note of a spool ({error}): take the spool from another copy") from error
    if machine == this_process()["machine"] and pid != os.getpid() and not process_is_gone(data):
        raise UserError(
            f"{str(note.parent)!r} is in use by process {pid}, which uploads it by itself: wait for its end"
        )
    storage, local = open_storage(results), LocalStorage(note.parent)
    shards = own_shards(local, "responses")
    for path in shards:
        shard = local.read(path)
        if shard is not None:
            if not storage.put_new(path, shard):
                log.warning("%s/%s is there with other content and stays as it is", storage.uri, path)
            local.delete([path])
    shutil.rmtree(note.parent, ignore_errors=True)
    return len(shards)
