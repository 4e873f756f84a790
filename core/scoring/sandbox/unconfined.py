"""No sandbox: what runs programs where none works and ``allow_unsafe_code`` is set."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

from core.scoring.sandbox.engine import CORE, Limits, Running, Streams, Usage, popen, python_command


class Unconfined:
    """No sandbox at all, for who has set ``allow_unsafe_code``: a process with time and memory limits."""

    name = "no sandbox"

    def problem(self) -> str | None:
        """Nothing can be missing."""
        return None

    def start(self, script: str, args: Sequence[str], limits: Limits, streams: Streams) -> Running:
        """Start ``script`` in a session and a directory of its own."""
        directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        return _Group(popen([*python_command(CORE / script), *args], streams, cwd=directory.name), directory)


class _Group:
    def __init__(self, process: subprocess.Popen[bytes], directory: tempfile.TemporaryDirectory[str]) -> None:
        self.process, self._directory = process, directory

    def attach(self) -> None:
        """Nothing to do: a process's children can be asked for at any time."""

    def usage(self) -> Usage:
        """Add up its process and those that descend from it."""
        import psutil

        usage = Usage(0, 0.0, 0)
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                usage = Usage(
                    usage.processes + process.num_threads(),
                    usage.cpu_seconds + times.user + times.system + times.children_user + times.children_system,
                    usage.memory + process.memory_info().rss,
                )
        return usage

    def kill(self) -> None:
        """End them and its process group; one that has left both stays."""
        import psutil

        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._directory.cleanup()

    def _processes(self) -> list[Any]:
        import psutil

        try:
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.Error:
            return []
