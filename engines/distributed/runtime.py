"""Local clusters of this user on this machine: where they are found, and the connection to their daemons."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import EngineDiedError
from engines.host.folder import locked, runtime_folder


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
    def environment(self) -> dict[str, str]:
        """Variables with which Ray's processes of one node listen on loopback alone, as they do by themselves but on Linux."""
        return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} if len(self.nodes) == 1 else {}

    @property
    def key(self) -> str:
        """The cluster's name: clusters on other devices are other clusters."""
        text = f"{self.device}-" + "+".join("-".join(node) for node in self.nodes)
        return text if len(text) <= 24 else f"{self.device}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def socket_path(key: str) -> Path:
    """Return the path of the socket of a cluster's daemon."""
    return runtime_folder() / f"{key}.sock"


def token_file() -> Path:
    """Return the file with the secret of this user's local clusters: Ray runs all code it is sent, and loopback is everybody's."""
    path = runtime_folder() / "ray_token"
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32))
    return path


def starting(key: str) -> AbstractContextManager[None]:
    """Hold the right to start the daemon of a cluster."""
    return locked(runtime_folder() / f"{key}.lock")


class DaemonConnection:
    """A connection to a cluster's daemon. JSON lines: the daemon greets with facts of its cluster, or why there is none.

    A sender of ``{"idle_seconds": …}`` is a client: the cluster lives while it has one, and for the last client's
    ``idle_seconds`` after that. ``{"stop": "now"}`` ends the cluster, ``{"stop": "unused"}`` ends it unless it has clients.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lines = connection.makefile("r", encoding="utf-8")

    @classmethod
    def connect(cls, key: str) -> DaemonConnection | None:
        """Connect to the daemon of a cluster; None where nobody listens."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(socket_path(key)))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        return cls(connection)

    def send(self, **message: Any) -> None:
        """Send one message; a daemon that is gone hears nothing."""
        with suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def greeting(self) -> dict[str, Any] | None:
        """Wait for the facts; None where the cluster ended first. Raises `core.errors.EngineDiedError` where it failed."""
        text = ""
        with suppress(OSError):
            text = self._lines.readline()
        if not text:
            return None
        facts: dict[str, Any] = json.loads(text)
        if "error" in facts:
            raise EngineDiedError(facts["error"])
        return facts

    def leave(self) -> None:
        """Hang up and wait until the daemon has done what follows from it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self.wait()
        self.close()

    def wait(self) -> None:
        """Wait until the daemon hangs up."""
        with suppress(OSError):
            while self._lines.readline():
                pass

    def close(self) -> None:
        """Free the socket."""
        self._lines.close()
        self._socket.close()
