"""Prefect's own temporary server, started early and out of Ctrl-C's reach."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def embedded_server() -> Iterator[Future[None]]:
    """Start the server in the background where no other is configured; wait on the future before the first flow.

    Ctrl-C reaches the whole foreground process group. A server that dies of it leaves Prefect's client retrying for minutes while
    the campaign wants to end, so the server is started with SIGINT blocked: it is stopped at exit, by SIGTERM.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefect-server") as pool:
        yield pool.submit(_start)


def _start() -> None:
    # A blocked signal stays blocked in child processes; this thread has nothing else to do with it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        SubprocessASGIServer().start()
