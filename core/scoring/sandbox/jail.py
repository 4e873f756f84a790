"""Jails: ways to start a script of ours, and the one that confines nothing. `core.scoring.sandbox.sandbox` chooses one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

ROOT = Path(__file__).parents[3]  # holds core/, under which the scripts import each other
# What all processes of a program inherit: where memory runs out they go first, and none is ever outside its group. A group that
# cannot be entered is one that counts nothing.
ENTER = '{ echo 1000 >/proc/self/oom_score_adj; [ -z "$0" ] || echo 0 >"$0/cgroup.procs"; } 2>/dev/null; exec "$@"'


@dataclass(frozen=True)
class Limits:
    """Limits of one program, all its processes together.

    ``cpu_seconds`` of processor time (HumanEval's own check gives 3 s), ``seconds`` on the clock, MB of memory with its files, MB a
    file, processes and threads, and characters of output that are kept.
    """

    cpu_seconds: float = 3.0
    seconds: float = 10.0
    memory_mb: int = 1024
    file_mb: int = 16
    processes: int = 64
    output_chars: int = 4000


@dataclass(frozen=True)
class Usage:
    """Use of a sandbox's processes now: their number with threads, seconds of processor time, bytes of memory."""

    processes: int
    cpu_seconds: float
    memory: int

    def most(self, other: Usage) -> Usage:
        """Return the larger of each: what one account misses the other may have."""
        return Usage(
            max(self.processes, other.processes),
            max(self.cpu_seconds, other.cpu_seconds),
            max(self.memory, other.memory),
        )


@dataclass(frozen=True)
class Streams:
    """Descriptors of a process, and those that it keeps besides."""

    stdin: int
    stdout: int
    stderr: int
    keep: tuple[int, ...] = ()


class Jailed(Protocol):
    """A script in its jail."""

    process: subprocess.Popen[bytes]

    def attach(self) -> None:
        """Open its processes, once the script has written something."""

    def usage(self) -> Usage:
        """Return the use of its processes, zeros where they have ended. Call `attach` first."""

    def kill(self) -> None:
        """End all of its processes, and return when they are gone."""


class Jail(Protocol):
    """A way to start a script where it can do no harm."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    def problem(self) -> str | None:
        """Return what is missing here, without starting anything."""

    def start(self, script: str, args: Sequence[str], limits: Limits, streams: Streams) -> Jailed:
        """Start ``script``, a path below `ROOT`.

        It must see this Python with its packages, and no other file, process, environment or network.
        """


def python_command(script: Path) -> list[str]:
    """Command line of this Python, outside any environment, for a script of ours."""
    return [os.path.realpath(sys.executable), "-I", "-S", "-u", str(script)]


def popen(
    command: Sequence[str], streams: Streams, keep: Sequence[int] = (), cwd: str = "/", group: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own with an empty environment, in the control group ``group`` where one is given."""
    return subprocess.Popen(
        ["/bin/sh", "-c", ENTER, str(group or ""), *command],
        stdin=streams.stdin,
        stdout=streams.stdout,
        stderr=streams.stderr,
        pass_fds=(*streams.keep, *keep),
        cwd=cwd,
        env={},  # bwrap's own environment is there to read inside, as that of process 1
        start_new_session=True,
    )


class Unconfined:
    """No jail at all, for ``allow_unsafe_code``: a process with time and memory limits."""

    name = "no sandbox"

    def problem(self) -> str | None:
        """Return None: nothing can be missing."""
        return None

    def start(self, script: str, args: Sequence[str], limits: Limits, streams: Streams) -> Jailed:
        """Start ``script`` in a session and a directory of its own."""
        directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        return _Group(popen([*python_command(ROOT / script), *args], streams, cwd=directory.name), directory)


class _Group:
    def __init__(self, process: subprocess.Popen[bytes], directory: tempfile.TemporaryDirectory[str]) -> None:
        self.process, self._directory = process, directory

    def attach(self) -> None:
        """Nothing to do: a process's children can be asked for at any time."""

    def usage(self) -> Usage:
        """Add up its process and those that descend from it."""
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
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._directory.cleanup()

    def _processes(self) -> list[Any]:
        try:
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.Error:
            return []
