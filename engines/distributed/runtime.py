"""Where local clusters of this user on this machine are found, and what their keepers are told."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import EngineDiedError
from engines.host.folder import runtime_folder


@dataclass(frozen=True)
class LocalSpec:
    """A local cluster: ``nodes`` (each the names of its devices) on ``device`` "cuda" or "cpu". Plain JSON values."""

    device: str
    nodes: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All devices."""
        return tuple(name for node in self.nodes for name in node)

    @property
    def key(self) -> str:
        """What the cluster is found by: clusters on other devices are other clusters."""
        text = f"{self.device}-" + "+".join("-".join(node) for node in self.nodes)
        return text if len(text) <= 24 else f"{self.device}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def socket_path(key: str) -> Path:
    """The socket of the keeper of a cluster."""
    return runtime_folder() / f"{key}.sock"


def living_keys() -> list[str]:
    """Keys of clusters whose socket is there; its keeper may be gone nevertheless."""
    return sorted(path.stem for path in runtime_folder().glob("*.sock"))


def token_file() -> Path:
    """The secret of this user's local clusters: Ray runs whatever code is sent to it, and loopback is everybody's."""
    path = runtime_folder() / "ray_token"
    with _locked(path.with_suffix(".lock")):
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32))
    return path


@contextmanager
def starting(key: str) -> Iterator[None]:
    """Hold the right to start the keeper of a cluster."""
    with _locked(runtime_folder() / f"{key}.lock"):
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Line:
    """A connection to a keeper. JSON lines: it greets with facts of its cluster, or why there is none.

    Who sends a wish, ``{"idle_seconds": …}``, is a client: the cluster lives while it has one, and for the last client's
    ``idle_seconds`` after that. ``{"stop": "now"}`` ends the cluster, ``{"stop": "unused"}`` ends it unless it has clients.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lines = connection.makefile("r", encoding="utf-8")

    @classmethod
    def connect(cls, key: str) -> Line | None:
        """A connection, or None where nobody listens."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(socket_path(key)))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        return cls(connection)

    def send(self, **message: Any) -> None:
        """Send one message; a keeper that is gone hears nothing."""
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return

    def greeting(self) -> dict[str, Any] | None:
        """Wait for the facts; None where the cluster ended first. Raises `core.errors.EngineDiedError` where it failed."""
        try:
            text = self._lines.readline()
        except OSError:
            return None
        if not text:
            return None
        facts: dict[str, Any] = json.loads(text)
        if "error" in facts:
            raise EngineDiedError(facts["error"])
        return facts

    def leave(self) -> None:
        """Hang up and wait until the keeper has done what follows from it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self.wait()
        self.close()

    def wait(self) -> None:
        """Wait until the keeper hangs up."""
        try:
            while self._lines.readline():
                pass
        except OSError:
            return

    def close(self) -> None:
        """Free the socket."""
        self._lines.close()
        self._socket.close()
