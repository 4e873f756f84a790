"""This user's folder on this machine: slots, queue, sockets, tokens."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.errors import UserError

PATH_BYTES = 100  # a Unix socket's path may have 107
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - nothing is written there
UUID = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.IGNORECASE)
NUMBER = re.compile(r"(?<![0-9a-f])\d+(?![0-9a-f])", re.IGNORECASE)  # and no piece of a hex text
SCRATCH = "STEELYARD_SCRATCH"  # a process's own folder for temporary files


def runtime_folder() -> Path:
    """This user's own directory for sockets and the token; ``STEELYARD_RUNTIME`` where that is set.

    Raises `core.errors.UserError` where it belongs to somebody else: its owner could have us run any code.
    """
    named = os.environ.get("STEELYARD_RUNTIME")
    usual = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    path = Path(named) if named else Path(usual) / f"steelyard-{os.getuid()}"
    _make_own(path, "STEELYARD_RUNTIME")
    if len(os.fsencode(path)) + 30 > PATH_BYTES:
        raise UserError(f"STEELYARD_RUNTIME = {str(path)!r}: too long for sockets; name a shorter path")
    return path


def compiled_folder() -> Path:
    """This user's own directory for what torch compiles, and runs: by itself, torch takes it from where all users may have put it.

    Raises `core.errors.UserError` where it belongs to somebody else.
    """
    usual = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(usual).expanduser() / "steelyard" / "compiled"
    try:
        _make_own(path, "XDG_CACHE_HOME")
    except OSError:  # a home that is not there, or not to be written to
        path = runtime_folder() / "compiled"
        _make_own(path, "STEELYARD_RUNTIME")
    return path


def _make_own(path: Path, variable: str) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UserError(f"{variable}: {str(path)!r} is not a directory of yours; name one that is")
    path.chmod(0o700)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of the file ``path``, across processes."""
    with path.open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def scratch_environment() -> dict[str, str]:
    """Variables that have a process put its temporary files in a new folder of its own, `SCRATCH`.

    vLLM leaves seven sockets in ``/tmp`` even at an orderly end.
    """
    # Sockets lie in it, so its path has to be short.
    folder = tempfile.mkdtemp(prefix="e", dir=runtime_folder())
    return {SCRATCH: folder, "TMPDIR": folder}


def shared_memory_of(group: int, since: float) -> set[Path]:
    """Files in shared memory, made ``since`` (unix seconds), that processes of the group have mapped or named by their id."""
    found: set[Path] = set()
    names = [path.name for path in SHARED_MEMORY.iterdir()] if SHARED_MEMORY.is_dir() else []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if os.getpgid(int(entry.name)) != group:
                continue
            found |= {SHARED_MEMORY / name for name in names if process_named(name) == entry.name}
            found |= mapped(entry.name)
    return {path for path in found if _made_since(path, since)}


def process_named(file: str) -> str | None:
    """The process id in the name of a file in shared memory: its first number, as in ``torch_PID_RANDOM_COUNT``, if any."""
    found = NUMBER.search(UUID.sub("", file))
    return found and found.group()


def mapped(process: str) -> set[Path]:
    """Files in shared memory that a process, by its name in ``/proc``, has mapped; a deleted one is called so."""
    maps = Path("/proc", process, "maps").read_text(encoding="utf-8", errors="replace")
    return {Path(line[line.index("/") :]) for line in maps.splitlines() if f" {SHARED_MEMORY}/" in line}


def _made_since(path: Path, since: float) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and status.st_ctime >= since - 1.0  # the kernel's clock is coarser than ours


def clear_up(since: float) -> None:
    """Remove what this process's group would leave behind. For a process that is about to end by force."""
    for path in shared_memory_of(os.getpgrp(), since):
        with suppress(OSError):
            path.unlink()
    if folder := os.environ.get(SCRATCH):
        shutil.rmtree(folder, ignore_errors=True)
