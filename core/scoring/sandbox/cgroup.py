"""Control groups (cgroup v2): what all processes of a sandbox used, whatever hides it from /proc, and limits that the kernel keeps.

Groups are made only where systemd has handed a part of the tree over (``Delegate=``), which it says by the attribute
``user.delegate`` (https://systemd.io/CGROUP_DELEGATION); everywhere else the tree is somebody else's.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import select
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from core.scoring.sandbox.jail import Limits, Usage

PREFIX = "steelyard-"
SPARE_PROCESSES = 32  # above the limit, which is told from outside; this one is against bombs
EMPTY_SECONDS = 5.0
MARK = ("user.delegate", b"1")
_numbers = itertools.count()


@dataclass(frozen=True)
class Group:
    """The control group of one sandbox."""

    path: Path

    def usage(self) -> Usage:
        """Return its use since it was made, by processes that have ended too. More than any limit where it ran out of memory."""
        seconds = _table(self.path / "cpu.stat").get("usage_usec", 0) / 1e6
        killed = _table(self.path / "memory.events").get("oom_kill", 0)
        return Usage(0, seconds, sys.maxsize if killed else self._memory())

    def _memory(self) -> int:
        """Bytes without what the kernel can drop at any time: files that were read, its own caches."""
        parts = _table(self.path / "memory.stat")
        droppable = parts.get("file", 0) - parts.get("shmem", 0) + parts.get("slab_reclaimable", 0)
        return max(int(_text(self.path / "memory.current") or 0) - droppable, 0)

    def remove(self) -> None:
        """End who is left in it, and remove it when they are gone; one that stays is removed by a later evaluator."""
        _set(self.path / "cgroup.kill", 1)
        with contextlib.suppress(OSError):
            self._await_empty()
            self.path.rmdir()

    def _await_empty(self) -> None:
        """Wait until the kernel has done with its last process, for which the file of its events can be watched."""
        deadline = time.monotonic() + EMPTY_SECONDS
        with (self.path / "cgroup.events").open() as events:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while "populated 1" in events.read() and (left := deadline - time.monotonic()) > 0:
                poll.poll(left * 1000)
                events.seek(0)


def new_group(limits: Limits) -> Group | None:
    """Make a group for one sandbox. None where none may be made here."""
    parent = delegated()
    if parent is None:
        return None
    group = Group(parent / f"{PREFIX}{os.getpid()}-{next(_numbers)}")
    try:
        group.path.mkdir()
    except OSError:
        return None
    _set(group.path / "memory.max", limits.memory_mb << 20)
    _set(group.path / "memory.swap.max", 0)
    _set(group.path / "pids.max", limits.processes + SPARE_PROCESSES)
    return group


@functools.cache
def delegated() -> Path | None:
    """Return the group that was handed over to us: our own, or the one above it where the unit has a ``DelegateSubgroup=``.

    Removes what an evaluator that was killed has left there. The kernel gives a group's children no memory controller while
    processes are in it itself: without a subgroup only processor time is counted.
    """
    own = own_group()
    found = next((folder for folder in (own, own.parent) if _is_delegated(folder)), None) if own else None
    if found is not None:
        for controller in ("memory", "pids"):
            _set(found / "cgroup.subtree_control", f"+{controller}")
        _sweep(found)
    return found


def own_group() -> Path | None:
    """Return the folder of this process's group, None where no cgroup v2 is mounted or it is not in what is mounted."""
    line = next((line for line in _text(Path("/proc/self/cgroup")).splitlines() if line.startswith("0::")), None)
    mounts = [Path(part.mountpoint) for part in psutil.disk_partitions(all=True) if part.fstype == "cgroup2"]
    folders = [mount / line.removeprefix("0::/") for mount in mounts[:1] if line]
    return next((folder for folder in folders if str(os.getpid()) in _text(folder / "cgroup.procs").split()), None)


def _is_delegated(folder: Path) -> bool:
    name, value = MARK
    try:
        return os.getxattr(folder, name) == value and os.access(folder, os.W_OK)
    except OSError:
        return False


def _sweep(folder: Path) -> None:
    for path in folder.glob(f"{PREFIX}*-*"):
        if not psutil.pid_exists(int(path.name.split("-")[1])):
            Group(path).remove()


def _set(file: Path, value: int | str) -> None:
    """Write a setting where the group has it: which controllers there are is not ours to say."""
    with contextlib.suppress(OSError):
        file.write_text(str(value))


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _table(file: Path) -> dict[str, int]:
    """Read a file of ``name value`` lines, empty where there is none."""
    return {name: int(value) for name, value in map(str.split, _text(file).splitlines())}
