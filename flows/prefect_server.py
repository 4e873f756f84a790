"""Prefect's server on SQLite, with transactions that wait for one another instead of failing.

Prefect 3.7 begins them DEFERRED: one that reads and then writes fails at once where another has written meanwhile ("database is
locked", PrefectHQ/prefect#23051), its client asks again seconds later, and several such can hold each other up for a minute. Begun
IMMEDIATE they queue. A campaign of 20 cells with nothing to compute took 9 to 76 s before, 3 to 6 s so.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from contextlib import AbstractAsyncContextManager
from typing import Any

from prefect.server.api.server import SubprocessASGIServer
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.settings import get_current_settings

OWNER = "STEELYARD_PREFECT_OWNER"  # process that a temporary server ends with, in its environment


def begin_immediate() -> None:
    """Have this process's Prefect server begin each SQLite transaction with the right to write. PostgreSQL is not touched."""

    def begin(
        self: AioSqliteConfiguration, session: Any, with_for_update: bool = False
    ) -> AbstractAsyncContextManager[Any]:
        return deferred(self, session, with_for_update=True)

    deferred = AioSqliteConfiguration.begin_transaction
    if deferred.__module__ != __name__:
        AioSqliteConfiguration.begin_transaction = begin  # type: ignore[method-assign, assignment]


def create_app() -> Any:
    """Return Prefect's server as an ASGI application; uvicorn's factory."""
    from prefect.server.api.server import create_app as prefect_app

    begin_immediate()
    if owner := os.environ.get(OWNER):
        end_with(int(owner))
    return prefect_app()


def end_with(owner: int) -> None:
    """Have this process end when ``owner`` has, killed or not (Linux)."""
    if sys.platform != "linux":
        return
    try:
        ended = os.pidfd_open(owner)
    except ProcessLookupError:
        os._exit(0)

    def wait() -> None:
        select.select([ended], [], [])
        os._exit(0)

    threading.Thread(target=wait, name="steelyard-owner", daemon=True).start()


class TemporaryServer(SubprocessASGIServer):
    """Prefect's own temporary server, from the factory above."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        server = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        server[OWNER] = str(os.getpid())
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        command = [sys.executable, "-m", "uvicorn", "--factory", f"{__name__}:create_app", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--log-level", "error", "--lifespan", "on"]
        return subprocess.Popen(command, env={**os.environ, **server, **settings})


def use_temporary_server() -> None:
    """Have Prefect start `TemporaryServer` where it would start its own: it keeps one instance for all who ask without a port."""
    if get_current_settings().api.url is None:
        TemporaryServer()
