"""Processes that must not outlive the one that started them, however it ends."""

from __future__ import annotations

import os
import sys

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
    """``command`` (its program an absolute path), ended by the signal ``by`` when the thread that starts it ends (Linux)."""
    return [sys.executable, "-I", "-c", _LAUNCHER, str(os.getpid()), by, *command]
