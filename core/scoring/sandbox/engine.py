"""What a sandbox engine is: a way to start a script of ours where it can do no harm. `core.scoring.sandbox.sandbox` lists them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CORE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Limits:
    """What one program may use, all its processes together.

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
    """What the processes of a sandbox use now: their number with threads, seconds of processor time, bytes of memory."""

    processes: int
    cpu_seconds: float
    memory: int


@dataclass(frozen=True)
class Streams:
    """Descriptors of a process, and those that it keeps besides."""

    stdin: int
    stdout: int
    stderr: int
    keep: tuple[int, ...] = ()


class Running(Protocol):
    """A script in its sandbox."""

    process: subprocess.Popen[bytes]

    def attach(self) -> None:
        """Take hold of its processes, once the script has said something."""

    def usage(self) -> Usage:
        """What its processes use now; nothing where they have ended. After ``attach``."""

    def kill(self) -> None:
        """End all of its processes, and return when they are gone."""


class Engine(Protocol):
    """A way to start a script of this folder in a sandbox of its own."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def problem(self) -> str | None:
        """Say what is missing here, without starting anything."""

    def start(self, script: str, args: Sequence[str], limits: Limits, streams: Streams) -> Running:
        """Start ``script``. It must see this Python with its packages, and no other file, process, environment or network."""


def python_command(script: Path) -> list[str]:
    """Command line of this Python, outside any environment, for a script of ours."""
    return [os.path.realpath(sys.executable), "-I", "-S", "-u", str(script)]


def popen(
    command: Sequence[str], streams: Streams, keep: Sequence[int] = (), cwd: str = "/"
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own with an empty environment."""
    return subprocess.Popen(
        command,
        stdin=streams.stdin,
        stdout=streams.stdout,
        stderr=streams.stderr,
        pass_fds=(*streams.keep, *keep),
        cwd=cwd,
        env={},  # bwrap's own environment is there to read inside, as that of process 1
        start_new_session=True,
    )
