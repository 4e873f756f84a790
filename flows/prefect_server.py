"""Prefect's server on SQLite, with transactions that wait for one another instead of failing; and a temporary one of a process.

Prefect 3.7 begins them DEFERRED: one that reads and then writes fails at once where another has written meanwhile ("database is
locked", PrefectHQ/prefect#23051), its client asks again seconds later, and several such can hold each other up for a minute. Begun
IMMEDIATE they queue. A campaign of 20 cells with nothing to compute took 9 to 76 s before, 3 to 6 s so.
"""

from __future__ import annotations

import atexit
import os
import select
import subprocess
import sys
import threading
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
from prefect.server.api.server import SubprocessASGIServer
from prefect.server.api.server import create_app as prefect_app
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.settings import get_current_settings

from core.errors import UserError
from core.log import log
from flows.login import temporary_login

OWNER = "STEELYARD_PREFECT_OWNER"  # environment variable: the process that a temporary server ends with
LEAST_SECONDS = 120  # Prefect's own 20 s are over before a busy machine, or a slow disk, has the server up
USUAL_SECONDS = 15
POLL_SECONDS = 0.1  # nothing announces a port that opens
STARTS = 3


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
    """Prefect's own temporary server, from the factory above, waited for as long as a busy machine may take."""

    def start(self, timeout: int | None = None) -> None:
        """Start the server, once, and wait until it answers, for ``timeout`` seconds else `startup_seconds`.

        Raises `core.errors.UserError` where it does not answer.
        """
        temporary_login()  # of this thread's clients, too
        if self.running:
            return
        self.port = self.port or self.find_available_port()
        self._starts = 1
        self.server_process = self._run_uvicorn_command()
        self.running = True
        atexit.register(self.stop)
        try:
            self._wait(timeout or startup_seconds())
        except BaseException:
            self.stop()
            raise

    def _wait(self, limit: float) -> None:
        began, logged = time.monotonic(), False
        with httpx.Client(timeout=limit) as client:
            while not self._answers(client):
                waited = time.monotonic() - began
                if waited >= limit or self._ended():
                    raise UserError(self._why_not(limit))
                if waited >= USUAL_SECONDS and not logged:
                    log.info(f"Prefect's temporary server takes longer than usual to start; waiting up to {limit:g} s")
                    logged = True
                time.sleep(POLL_SECONDS)

    def _answers(self, client: httpx.Client) -> bool:
        try:
            return client.get(f"{self.api_url}/health").status_code == httpx.codes.OK
        except httpx.TransportError:  # not listening yet, or too busy to answer
            return False

    def _exit_code(self) -> int | None:
        return None if self.server_process is None else self.server_process.poll()

    def _ended(self) -> bool:
        """Return whether the server's process is gone for good: its port may have been taken, so that it gets another."""
        if self._exit_code() is not None and self._starts < STARTS:
            self._starts += 1
            self.port = self.find_available_port()
            self.server_process = self._run_uvicorn_command()
        return self._exit_code() is not None

    def _why_not(self, limit: float) -> str:
        code = self._exit_code()
        mend = (
            "set PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS to allow it more, or PREFECT_API_URL to a server of your own "
            "(steelyard server)"
        )
        if code is None:
            return f"Prefect's temporary server did not answer within {limit:g} s: {mend}"
        return f"Prefect's temporary server ended with exit code {code} before it answered: {mend}"

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        server = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        server |= {OWNER: str(os.getpid()), "PREFECT_SERVER_API_AUTH_STRING": temporary_login()}
        server["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = self.address  # a page of any site may ask else
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        # Without -P and an app dir of ours, a `flows/` in the current directory would be taken for this package.
        command = [sys.executable, "-P", "-m", "uvicorn", "--app-dir", str(Path(__file__).resolve().parents[1])]
        command += ["--factory", f"{__name__}:create_app", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--log-level", "error", "--lifespan", "on"]
        return subprocess.Popen(command, env={**os.environ, **settings, **server})


def startup_seconds() -> float:
    """Return how long a temporary server is waited for: Prefect's setting where it is set by hand, else 120 s at least."""
    ephemeral = get_current_settings().server.ephemeral
    set_by_hand = "startup_timeout_seconds" in ephemeral.model_fields_set
    return ephemeral.startup_timeout_seconds if set_by_hand else max(ephemeral.startup_timeout_seconds, LEAST_SECONDS)
