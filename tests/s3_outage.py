"""An S3 server that is killed and comes back as it was: same data, same port, same keys."""

from __future__ import annotations

import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from deployments.local_s3 import S3Server

START_SECONDS = 60


class Outage:
    """Kills a server of `deployments.local_s3` and starts it again."""

    def __init__(self, server: S3Server) -> None:
        process = psutil.Process(server.pid)
        self._endpoint = server.endpoint
        self._command, self._environment = process.cmdline(), process.environ()
        self._process: psutil.Process | psutil.Popen = process
        self._started: list[psutil.Popen] = []
        self.is_down = False

    def begin(self) -> None:
        """Kill the server, and everything below it."""
        for process in [*self._process.children(recursive=True), self._process]:
            process.kill()
        self._process.wait(10)
        self.is_down = True

    def end(self) -> None:
        """Start the server and wait until it answers."""
        self._process = psutil.Popen(
            self._command,
            env=self._environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._started.append(self._process)
        deadline = time.monotonic() + START_SECONDS
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            try:
                with opener.open(f"{self._endpoint}/healthz", timeout=2):
                    self.is_down = False
                    return
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline
                threading.Event().wait(0.1)

    def close(self) -> None:
        """Kill what was started here."""
        for process in self._started:
            if process.is_running():
                process.kill()
                process.wait(10)


@contextmanager
def outages(server: S3Server) -> Iterator[Outage]:
    """Give a server's outages; whatever was started is gone after the block."""
    outage = Outage(server)
    try:
        yield outage
    finally:
        outage.close()
