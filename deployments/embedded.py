"""Prefect's own temporary server, started early and out of the reach of signals to the process group."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def embedded_server() -> Iterator[Future[None]]:
    """Start the server in the background where no other is configured; wait on the future before the first flow.

    Ctrl-C reaches the whole foreground process group, and systemd sends SIGTERM to the whole control group. A server that dies of
    either leaves Prefect's client retrying for minutes while the campaign wants to end, so it is started with both blocked.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefect-server") as pool:
        yield pool.submit(_start)


def _start() -> None:
    # A blocked signal stays blocked in child processes; this thread has nothing else to do with it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        from flows.prefect_server import TemporaryServer

        server = TemporaryServer()
        server.start()
        atexit.register(_kill, server)  # comes before Prefect's own stop, which would wait for its SIGTERM


def _kill(server: object) -> None:
    process = getattr(server, "server_process", None)
    if process is not None:
        process.kill()
        process.wait()
