"""The process of an engine, as its parent sees it: started, sent to, ended with its group, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from core.redact import redact
from core.request import Generate, Request
from engines.host.folder import SCRATCH, scratch_environment, shared_memory_of
from engines.host.slots import INHERITED

GROUP_SECONDS = 5.0  # what killed processes may take to vanish


class Child:
    """The engine process, leader of its group, with the socket to it and the log of all it prints.

    ``module`` is what it runs; see `engines.process.server`. With ``scratch`` it has a folder of its own for temporary files, which
    goes with it, as does what it has in shared memory.
    """

    def __init__(self, name: str, module: str, environment: Mapping[str, str], *, scratch: bool = False) -> None:
        self._scratch = scratch_environment() if scratch else {}
        handle, path = tempfile.mkstemp(prefix=f"steelyard-{name}-", suffix=".log")
        self.log = Path(path)
        self._socket, theirs = socket.socketpair()
        self.ended: float | None = None
        with os.fdopen(handle, "wb") as log, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**environment, **self._scratch, INHERITED: ""},
            )
        self.pid = self._process.pid  # of its group too
        self._started = time.time()
        self.connection = Connection(os.dup(self._socket.fileno()))
        self.exited = threading.Event()
        self._sending = threading.Lock()
        self._signalling = threading.Lock()
        self._shared: set[Path] = set()
        threading.Thread(target=self._reap, name="steelyard-reap", daemon=True).start()

    @property
    def returncode(self) -> int | None:
        """Exit status once the child is reaped, below 0 for a signal."""
        return self._process.returncode

    def send(self, message: tuple[Any, ...]) -> None:
        """Send one message; raises OSError once the child is gone or its input ended."""
        with self._sending:
            self.connection.send(message)

    def send_slots(self, slots: Sequence[int]) -> None:
        """Hand ``slots`` (`engines.host.slots`) to the child, which holds them too until it ends. Raises OSError as `send` does."""
        with self._sending:
            self.connection.send(("slots", len(slots)))
            socket.send_fds(self._socket, [b"."], slots)

    def end_input(self) -> None:
        """Ask the child to end by the end of its input. Never blocks, even if the child hangs."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def note_shared_memory(self) -> None:
        """Remember what the group has in shared memory, to be removed after its end."""
        if self._scratch:
            self._shared |= shared_memory_of(self.pid, self._started)

    def kill(self) -> None:
        """End the whole group at once, if the child is not reaped yet."""
        with self._signalling:
            if self._process.returncode is None:
                self.note_shared_memory()
                self._kill_group()

    def discard(self) -> None:
        """End an unused child, and remove its log."""
        self.kill()
        self.exited.wait()
        self.log.unlink(missing_ok=True)
        self.free()

    def free(self) -> None:
        """Close the socket."""
        with self._sending:
            self.connection.close()
        self._socket.close()

    def _reap(self) -> None:
        """Wait for the child, and end what is left of its group while the unreaped child still holds the group's id."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._signalling:
            self.note_shared_memory()  # of those that outlive their leader
            self._kill_group()
            self._process.wait()
        deadline = time.monotonic() + GROUP_SECONDS
        while is_alive(self.pid) and time.monotonic() < deadline:
            time.sleep(0.02)  # killed, but still giving its memory back; the processes are not ours to wait for
        for path in self._shared:
            with contextlib.suppress(OSError):
                path.unlink()
        if self._scratch:
            shutil.rmtree(self._scratch[SCRATCH], ignore_errors=True)
        self.ended = time.time()
        self.exited.set()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def is_alive(group: int) -> bool:
    """Whether a process group has members other than zombies."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


MOST_REQUESTS = 256
MOST_BYTES = 64 << 20  # of images; an image larger than that travels alone


def batches(requests: Sequence[Request], most_bytes: int = MOST_BYTES) -> Iterator[list[Request]]:
    """Yield all requests in their order, few enough at a time for one message."""
    batch: list[Request] = []
    size = 0
    for request in requests:
        more = sum(map(len, request.images)) if isinstance(request, Generate) else 0
        if batch and (len(batch) == MOST_REQUESTS or size + more > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += more
    if batch:
        yield batch


QUOTED_LINES = 12
READ_BYTES = 1 << 17
ERROR_LINE = re.compile(r"\b[A-Za-z_.]*(?:Error|Exception): .+")
FOLLOW_UP = re.compile(
    r"Engine core initialization failed|Engine loop is not running|EngineCore encountered an issue|engine core ended"
    r"|WorkerProc initialization failed|RuntimeError: cancelled$"
)
KERNEL_COUNTS = Path("/proc/vmstat")
OUT_OF_MEMORY = " (the kernel was out of memory meanwhile, and killed processes)"


def oom_kills(counts: Path = KERNEL_COUNTS) -> int:
    """Return how many processes the kernel has killed for want of memory since it started; 0 where it does not tell."""
    try:
        lines = counts.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def describe_exit(returncode: int | None) -> str:
    """Return a process's end as a phrase: ``was killed by SIGKILL`` or ``exited with status 1``."""
    if returncode is None:
        return "is gone"
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


def quote_log(path: Path) -> str:
    """Return the last error named in ``path``, its last lines, and where they are from; values of secrets are masked."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - READ_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return f" (its log {path} cannot be read)"
    lines = [redact(line) for line in lines if line.strip()]
    found = (match.group() for line in lines if (match := ERROR_LINE.search(line)) and not FOLLOW_UP.search(line))
    cause = next(iter(deque(found, maxlen=1)), None)
    said = f" ({cause})" if cause else ""
    return f"{said}; the end of its log {path}:\n" + "\n".join(f"  {line}" for line in lines[-QUOTED_LINES:])
