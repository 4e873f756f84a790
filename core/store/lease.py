"""Leases of cells in the results store: of several holders that ask for a cell at once, one computes it.

Layout under the store's URI::

    holders/<holder>.json                     a holder of leases, written again every few seconds while it lives
    leases/<fingerprint>/<generation>.json    the holder that computes a cell: created once, never written again

The highest generation counts, for as long as its holder lives. A holder that finds a dead one's lease creates the next
generation, and of several that try at once the storage lets one. A lease keeps work from being done twice, no more: what a
cell holds is decided by its commit record.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from core.errors import StoreError
from core.storage.storage import Storage
from core.store.commit import checked

LEASE_SCHEMA = "1"  # a lease of another version is one nonetheless: what it says of its holder stays
EXPIRES_SECONDS = 60.0  # after a holder's last sign of life
RENEWALS = 6  # signs of life in that time
SAME_START_SECONDS = 5.0  # a process's start is known as precisely as its machine's clock is steady
LEASE_NAME = re.compile(r"leases/([0-9a-f]{64})/([0-9]{6,})\.json")
HOLDER_NAME = re.compile(r"holders/[0-9a-f]{32}\.json")

log = logging.getLogger("steelyard.results")


@dataclass(frozen=True)
class Lease:
    """A lease as it lies in the store. ``about`` is what its holder wrote down for people."""

    path: str
    fingerprint: str
    generation: int
    holder: str
    since: str  # ISO time, by the holder's clock
    about: dict[str, Any]


class Lessee:
    """Holds leases, and shows that it lives, until `close`. Safe to use from several threads.

    ``about`` is kept beside each lease for people to read. Methods raise `core.errors.StoreError` where the storage fails.
    """

    def __init__(self, storage: Storage, about: Mapping[str, Any], expires: float = EXPIRES_SECONDS) -> None:
        self._storage, self._about, self._expires = storage, dict(about), expires
        self.id = secrets.token_hex(16)
        self._held: dict[str, int | None] = {}  # None while it is asked for
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._beating: threading.Thread | None = None
        self._watch = Watch(storage, expires)

    def acquire(self, fingerprint: str) -> bool:
        """Acquire the lease of a cell. False where another holds it, or this one does already."""
        self._begin()
        with self._lock:
            if fingerprint in self._held:
                return False
            self._held[fingerprint] = None
        generation = None
        try:
            generation = self._acquire(fingerprint)
        finally:
            with self._lock:
                if generation is None:
                    self._held.pop(fingerprint, None)
                else:
                    self._held[fingerprint] = generation
        return generation is not None

    def _acquire(self, fingerprint: str) -> int | None:
        top = max(read_leases(self._storage, fingerprint), key=lambda lease: lease.generation, default=None)
        if top is not None and top.holder == self.id:
            return top.generation  # an earlier try that landed unheard
        if top is not None and not self._watch.is_dead(top.holder):
            return None
        generation = 1 if top is None else top.generation + 1
        path = lease_path(fingerprint, generation)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"schema": LEASE_SCHEMA, "holder": self.id, "since": since, "about": self._about}
        if not self._storage.put_new(path, json.dumps(content).encode()):
            return None
        if any(lease.generation > generation for lease in read_leases(self._storage, fingerprint)):
            self._storage.delete([path])  # what was looked at above had long changed
            return None
        if top is not None:
            log.info("cell %s is taken over from %s, who is gone", fingerprint[:12], top.about or top.holder)
        return generation

    def release(self, fingerprint: str) -> None:
        """Release a lease; none held is no error."""
        with self._lock:
            mine = self._held.pop(fingerprint, None)
        if mine is not None:
            # What lies below was taken over by this one.
            leases = [lease for lease in read_leases(self._storage, fingerprint) if lease.generation <= mine]
            if any(lease.generation == mine and lease.holder == self.id for lease in leases):
                self._storage.delete([lease.path for lease in leases])

    def close(self) -> None:
        """Release all leases. What the storage does not take now expires by itself."""
        self._ending.set()
        if self._beating is None:
            return
        self._beating.join()
        try:
            for fingerprint in list(self._held):
                self.release(fingerprint)
            self._storage.delete([holder_path(self.id)])
        except StoreError as error:
            log.warning("leases stay until they expire in %g s: %s", self._expires, error)

    def _begin(self) -> None:
        with self._lock:
            if self._beating is None:
                self._show_life()
                self._beating = threading.Thread(target=self._beat, name="steelyard-lease", daemon=True)
                self._beating.start()

    def _beat(self) -> None:
        failing = False
        while not self._ending.wait(self._expires / RENEWALS):
            try:
                self._show_life()
                failing = False
            except StoreError as error:
                if not failing:
                    log.warning("leases cannot be renewed: %s", error)
                failing = True

    def _show_life(self) -> None:
        content = {"schema": LEASE_SCHEMA, **this_process(), "expires": self._expires, "about": self._about}
        self._storage.put(holder_path(self.id), json.dumps(content).encode())


class Watch:
    """Finds out which holders are dead. It is kept: a holder whose time is over gets another moment to show life."""

    def __init__(self, storage: Storage, expires: float = EXPIRES_SECONDS, clock: Callable[[], float] = time.monotonic):
        self._storage, self._expires, self._clock = storage, expires, clock
        self._late: dict[str, float] = {}

    def is_dead(self, holder: str) -> bool:
        """Whether a holder will not go on: it has ended, its process on this machine is gone, or its time is over.

        The time is the storage's, so that clocks need not agree. It is over only where it was so a little while ago too:
        after an outage of the storage living holders come back.
        """
        silence = self.silence(holder)
        if silence is None:
            return True
        if silence <= self._expires:
            self._late.pop(holder, None)
            return False
        return self._clock() - self._late.setdefault(holder, self._clock()) >= 2 * self._expires / RENEWALS

    def silence(self, holder: str) -> float | None:
        """Return the seconds since a holder's last sign of life; None where it is known to have ended."""
        path = holder_path(holder)
        data = self._storage.read(path)
        return None if data is None or process_is_gone(data) else self._storage.age(path)


def lease_path(fingerprint: str, generation: int) -> str:
    """Path of a lease."""
    return f"leases/{checked(fingerprint)}/{generation:06d}.json"


def holder_path(holder: str) -> str:
    """Path of a holder's sign of life."""
    path = f"holders/{holder}.json"
    if not HOLDER_NAME.fullmatch(path):
        raise StoreError(f"holder {holder!r}: holders are named by 32 hex digits")
    return path


def read_leases(storage: Storage, fingerprint: str | None = None) -> list[Lease]:
    """Return the leases of a cell, or of all. A file that is no lease is warned about and stepped over."""
    leases = []
    paths = storage.list("leases" if fingerprint is None else f"leases/{fingerprint}")
    for path, data in storage.read_many(paths).items():
        named = LEASE_NAME.fullmatch(path)
        try:
            content = json.loads(data)
            if named is None or not HOLDER_NAME.fullmatch(holder_path(content["holder"])):
                raise ValueError(path)
            about = dict(content["about"])
            lease = Lease(path, named[1], int(named[2]), content["holder"], str(content["since"]), about)
        except (ValueError, KeyError, TypeError, StoreError) as error:
            log.warning("%s/%s is not used: no lease (%r)", storage.uri, path, error)
            continue
        leases.append(lease)
    return leases


def this_process() -> dict[str, Any]:
    """Name this process so that others on this machine find out whether it lives."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def process_is_gone(data: bytes) -> bool:
    """Whether the process that a holder wrote down ran on this machine and has ended. False where that cannot be known."""
    try:
        content = json.loads(data)
        machine, pid, started = content["machine"], int(content["pid"]), float(content["started"])
    except (ValueError, KeyError, TypeError):
        return False
    if machine is None or machine != _machine():
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) > SAME_START_SECONDS or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _machine() -> str | None:
    """Name what process ids are unique in: one boot of one machine, and one namespace of it."""
    if sys.platform != "linux":
        return None
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None
