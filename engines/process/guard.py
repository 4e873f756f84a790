"""A guard over a command, whose whole family ends with the starter: ``python -m engines.process.guard COMMAND…``.

Its stdin is a pipe from the starter, its exit status the command's. For programs such as Ray, whose helpers outlive their parents
for a while.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import subprocess
import sys

import psutil

GRACE_SECONDS = 3.0
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parents end (Linux), so that `end_descendants` finds them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_descendants(grace_seconds: float = GRACE_SECONDS) -> None:
    """End all processes below this one: in order where they can, by force after ``grace_seconds``."""
    processes = psutil.Process().children(recursive=True)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(processes, grace_seconds)
    # What they left behind has become ours.
    while left := [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, grace_seconds)


def main() -> int:
    """Run the command until it ends or the starter does. Returns its exit status."""
    adopt_orphans()
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    ended = os.pidfd_open(command.pid)
    select.select([ended, sys.stdin], [], [])
    status = command.poll()
    end_descendants(0.0)
    return 1 if status is None else status


# Replaces itself by the command, which the kernel ends when the starting thread ends, however it ends. A ``preexec_fn``
# could deadlock in a process with threads. Where the parent is gone before prctl is called, there is nothing to do.
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, getattr(signal, sys.argv[2]))
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[3], sys.argv[3:])
"""


def ends_with_us(command: list[str], *, by: str = "SIGKILL") -> list[str]:
    """Return ``command``, an absolute path first, made to end by the signal ``by`` when the thread that starts it ends (Linux)."""
    return [sys.executable, "-I", "-c", _LAUNCHER, str(os.getpid()), by, *command]


if __name__ == "__main__":
    sys.exit(main())
