"""A real Prefect server, and workers of ours, as processes that end with the test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from engines.process.guard import ends_with_us
from flows.login import KEPT
from tests.prefect_events import drain

START_SECONDS = 60
CLI = [sys.executable, "-c", "from deployments.cli import main; main()"]


@dataclass(frozen=True)
class PrefectServer:
    """Where the server answers, and the environment in which processes find it."""

    url: str
    env: Mapping[str, str]


@contextmanager
def prefect_server(home: Path) -> Iterator[PrefectServer]:
    """Start a server with its files under ``home``; this process talks to it until the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Neither the machine's Prefect settings nor those of the flow tests' own temporary server.
    env = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    env |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    home.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}/api"
    command = [*CLI, "server", "--port", str(port)]
    with process(command, env, home / "server.log"):
        _await(f"{url}/health", home / "server.log")
        drain()  # what emits events and logs keeps its connection, to the server of an earlier test
        login = (home / KEPT).read_text(encoding="ascii")  # our commands find it by themselves
        with temporary_settings(updates={PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: login}):
            yield PrefectServer(url, {**env, "PREFECT_API_URL": url})
            drain()


@contextmanager
def worker(server: PrefectServer, pool: str, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start `steelyard worker` with heartbeats of one second."""
    quick = {"PREFECT_WORKER_HEARTBEAT_SECONDS": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with process([*CLI, "worker", pool, *options], {**server.env, **quick}, log) as started:
        yield started


@contextmanager
def process(command: list[str], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``command`` as a process group of its own; the group is gone at the end, and when this process is killed."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            ends_with_us(command, by="SIGTERM"), env=dict(env), stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield started
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                started.wait(timeout=15)
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def _await(url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(URLError, OSError), urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the Prefect server did not start: {log.read_text()}")
