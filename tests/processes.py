"""Finding and awaiting processes that the code under test has started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def killed_at_the_end(script: str, *arguments: str) -> Iterator[str]:
    """Run a Python script, give the first line that it prints, and kill it at the end of the block."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline()
        finally:
            process.kill()


def group_of(pid: int) -> list[psutil.Process]:
    """Live processes of the process group that ``pid`` leads."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, ProcessLookupError):
            continue
    return found


def gone(processes: Sequence[psutil.Process], timeout: float) -> bool:
    """Whether all of ``processes`` end (or are zombies nobody has reaped) within ``timeout`` seconds."""
    alive = psutil.wait_procs(processes, timeout=timeout)[1]
    return all(_is_over(process) for process in alive)


def _is_over(process: psutil.Process) -> bool:
    try:
        # The first thread of a killed process is a zombie while others still hold its files and locks.
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


def running() -> dict[int, psutil.Process]:
    """Live processes that this test session has started, by id, whoever their parents are now."""
    found = {}
    for process in psutil.process_iter():
        try:
            if _is_ours(process) and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
        except (psutil.Error, ProcessLookupError):
            continue
    return found


def _is_ours(process: psutil.Process) -> bool:
    environment = process.environ()
    if environment:  # the session's own directory marks whatever inherits it; see tests/conftest.py
        return environment.get("STEELYARD_RUNTIME") == os.environ["STEELYARD_RUNTIME"]
    if not process.name().startswith(("ray::", "VLLM::")):
        return False
    # These overwrite their environment with their title. Whose they are, their parents and group leaders still tell; one that has
    # none left is an orphan, which is what is looked for.
    for relative in [*process.parents(), *_leaders(process)]:
        if relative.pid > 1 and (told := relative.environ()):
            return told.get("STEELYARD_RUNTIME") == os.environ["STEELYARD_RUNTIME"]
    return True


def _leaders(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for leader in (os.getpgid(process.pid), os.getsid(process.pid)):
        if leader != process.pid and psutil.pid_exists(leader):
            found.append(psutil.Process(leader))
    return found


def started_since(before: dict[int, psutil.Process]) -> list[psutil.Process]:
    """Processes `running` that were not there ``before``."""
    return [process for pid, process in running().items() if pid not in before or before[pid] != process]


def nothing_left(before: dict[int, psutil.Process], timeout: float = 10.0) -> bool:
    """Whether all that was `started_since` ends within ``timeout`` seconds; a process that said goodbye still has to exit."""
    return gone(started_since(before), timeout)
