"""The Prefect server: running one, and reaching the one that the environment or the active profile names."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from core.errors import UserError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PATIENCE_SECONDS = 8.0


@contextmanager
def server_client() -> Iterator[SyncPrefectClient]:
    """Open a client of the configured server, which has just answered.

    Raises `core.errors.UserError` where none is configured (Prefect would start a temporary one), where it does not answer
    within some seconds, refuses us, or later fails a request, which is not caught within the block.
    """
    from httpx import HTTPError, HTTPStatusError
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

    from flows.login import log_in

    log_in()
    url = get_current_settings().api.url
    if url is None:
        raise UserError(
            "no Prefect server is configured: start one with `steelyard server` and set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    with (
        temporary_settings(updates={PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(httpx_settings={"timeout": PATIENCE_SECONDS}, sync_client=True) as client,
    ):
        problem = client.api_healthcheck()
    if problem is not None:
        status = problem.response.status_code if isinstance(problem, HTTPStatusError) else None
        if status in (401, 403):
            raise UserError(
                f"Prefect server {without_login(url)} refuses us: set PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
            )
        why = f"HTTP {status}" if status else type(problem).__name__
        raise UserError(
            f"Prefect server {without_login(url)} does not answer ({why}): start it with `steelyard server`, "
            "or set PREFECT_API_URL"
        )
    # The client that is used gets Prefect's own time-outs: a busy server may take longer to answer than a health check may.
    with get_client(sync_client=True) as client:
        try:
            yield client
        except HTTPError as error:
            raise UserError(f"Prefect server {without_login(url)}: {str(error).splitlines()[0][:300]}") from error


def serve(host: str, port: int) -> None:
    """Run Prefect's server in this process, as ``prefect server start`` does, with `flows.prefect_server`'s mend for SQLite.

    It asks for a login: one of its own where none is set and only this machine reaches it.
    Raises `core.errors.UserError` where other machines could reach it and no login is set.
    """
    from prefect.cli import app
    from prefect.settings import get_current_settings

    from deployments.console import say
    from flows.login import is_loopback, require_login
    from flows.prefect_server import begin_immediate

    if not is_loopback(host) and get_current_settings().server.api.auth_string is None:
        raise UserError(
            f"host = {host!r}: whoever reaches the port could run code on the workers: set "
            "PREFECT_SERVER_API_AUTH_STRING=user:password here, and PREFECT_API_AUTH_STRING for workers and users"
        )
    if (file := require_login()) is not None:
        say(
            f"This server asks for a login, which is now in {file}, for you alone to read.\n"
            "Steelyard's commands on this machine find it; a browser wants it typed in; other clients and machines take "
            f'PREFECT_API_AUTH_STRING="$(cat {shlex.quote(str(file))})".'
        )
    api = get_current_settings().server.api
    if "cors_allowed_origins" not in api.model_fields_set:  # its default lets a page of any site ask
        api.cors_allowed_origins = ",".join(f"http://{name}:{port}" for name in ("127.0.0.1", "localhost"))
    begin_immediate()
    sys.argv = ["prefect", "server", "start", "--host", host, "--port", str(port)]  # its entry point takes no others
    app()


def without_login(url: str) -> str:
    """Return ``url`` without the user and password that it may carry."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
