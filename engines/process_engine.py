"""The parent side of an engine that lives in a process of its own. Imports neither vLLM nor Ray."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil

from core.errors import EngineDiedError, UserError
from core.redact import redact
from core.request import Request, Response
from engines.batches import batches
from engines.devices import INHERITED
from engines.engine import EngineInfo
from engines.process_log import describe_exit, quote_log
from engines.stop import Stop

_Item = list[Response] | Exception | Stop | None  # what a run hears: responses, its end or a fault

GROUP_SECONDS = 5.0  # what killed processes may take to vanish


class ProcessEngine:
    """An `engines.engine.Engine` in a child process that leads its own process group; see `engines.process_server`.

    ``name`` is the engine's, ``module`` what the child runs, ``opening`` what it opens with (pickled), ``model`` the
    name in messages, ``slots`` the descriptors of its devices (`engines.slots`), which the child holds too. A fault or an
    out-of-memory kill ends the child and never this process, and all it held comes back with it. An orderly end may take
    ``close_seconds``; while the child still loads it is killed at once unless ``orderly_while_loading``.
    """

    def __init__(
        self,
        name: str,
        module: str,
        opening: object,
        *,
        model: str,
        environment: Mapping[str, str],
        close_seconds: float,
        orderly_while_loading: bool,
        slots: Sequence[int] = (),
    ) -> None:
        self._name = name
        self._module = module
        self._opening_message = opening
        self._model = model
        self._environment = environment
        self._slots = tuple(slots)
        self._close_seconds = close_seconds
        self._orderly_while_loading = orderly_while_loading
        self._lock = threading.Lock()  # guards _child, _closing, _death and _runs
        self._child: _Child | None = None
        self._closing = False
        self._death: str | None = None
        self._runs: dict[int, SimpleQueue[_Item]] = {}
        self._numbers = itertools.count()
        self._stats: dict[str, float] = {}
        self._opening: SimpleQueue[dict[str, Any] | Exception] = SimpleQueue()
        self._ready = threading.Event()
        self._buried = threading.Event()

    def open(self) -> EngineInfo:
        """Start the process and load the model.

        Raises `core.errors.EngineDiedError` with the cause, `core.errors.UserError` for what the user can mend.
        """
        started = time.monotonic()
        try:
            child = self._start()
            self._send(child, "open", self._opening_message)
            facts = self._opening.get()
        except BaseException:  # also Ctrl-C: nothing that was started may stay
            self.close()
            raise
        if isinstance(facts, Exception):
            self.close()
            raise facts
        detail = {"pid": child.pid, "log": str(child.log), **facts.pop("detail", {})}
        seconds = 0.0 if facts.get("reused") else time.monotonic() - started
        return EngineInfo(engine=self._name, load_seconds=seconds, detail=detail, **facts)

    def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
        """Yield one response per request as each finishes; see `engines.engine.Engine`."""
        number = next(self._numbers)
        responses: SimpleQueue[_Item] = SimpleQueue()
        with self._lock:
            child = self._child
            if self._death is not None or child is None or self._closing or not self._ready.is_set():
                raise EngineDiedError(self._death or "the engine is not open")
            self._runs[number] = responses
        finished = False
        stopping = stop.heard_by(lambda: responses.put(stop)) if stop else contextlib.nullcontext()
        try:
            for portion in batches(requests):
                self._send(child, "requests", number, portion)
            self._send(child, "start", number)
            with stopping:
                while isinstance(batch := responses.get(), list):
                    yield from batch
            finished = not isinstance(batch, Stop)
            if isinstance(batch, Exception):
                raise batch
        finally:
            with self._lock:
                self._runs.pop(number, None)
            if not finished:
                with contextlib.suppress(EngineDiedError):
                    self._send(child, "abort", number)

    def stats(self) -> dict[str, float]:
        """See `engines.engine.Engine.stats`. Takes no lock: ``open`` holds it while the process starts."""
        child = self._child
        if child is None:
            return {}
        ended = {} if child.ended is None else {"ended": child.ended}
        return {**self._stats, "pid": float(child.pid), "started": child.started, **ended}

    def close(self, *, keep: bool = True) -> None:
        """End the process and its whole group, by force where it takes too long. Safe to call twice."""
        with self._lock:
            self._closing = True
            child = self._child
        if child is None:
            return
        if keep:
            with contextlib.suppress(OSError):
                child.send(("keep",))
        child.end_input()
        orderly = self._orderly_while_loading or self._ready.is_set()
        if not orderly or not child.exited.wait(self._close_seconds):
            child.kill()
        self._buried.wait()

    def _start(self) -> _Child:
        with self._lock:
            if self._closing or self._child is not None:
                raise EngineDiedError("the engine was closed" if self._closing else "the engine was opened before")
            child = self._child = _Child(self._name, self._module, self._environment, self._slots)
        threading.Thread(target=child.reap, name="steelyard-reap", daemon=True).start()
        threading.Thread(target=self._receive, args=(child,), name="steelyard-receive", daemon=True).start()
        return child

    def _send(self, child: _Child, *message: Any) -> None:
        try:
            child.send(message)
        except OSError:
            self._buried.wait()
            raise EngineDiedError(self._death) from None

    def _receive(self, child: _Child) -> None:
        """Hand what the child sends to whom it concerns, until the child is gone."""
        reason: str | None = None
        refusal: str | None = None
        with contextlib.suppress(EOFError, OSError):
            while reason is None:
                match child.connection.recv():
                    case ("ready", facts):
                        self._ready.set()
                        self._opening.put(facts)
                    case ("stats", stats):
                        self._stats = stats
                    case ("responses", run, responses):
                        self._hand(run, responses)
                    case ("done", run):
                        self._hand(run, None)
                    case ("broken", run, why):
                        self._hand(run, RuntimeError(f"the engine could not serve the run: {redact(why)}"))
                    case ("failed" | "died", why):
                        reason = why
                    case ("refused", why):
                        reason = refusal = why
        if not child.exited.wait(self._close_seconds):
            child.kill()
            child.exited.wait()
        self._bury(child, reason, refusal)

    def _hand(self, run: int, item: list[Response] | Exception | None) -> None:
        with self._lock:
            responses = self._runs.get(run)
        if responses is not None:  # else the caller stopped reading and an abort is on its way
            responses.put(item)

    def _bury(self, child: _Child, reason: str | None, refusal: str | None) -> None:
        """Tell everyone who waits, free the socket, and drop the log of an orderly end."""
        with self._lock:
            if self._closing and reason is None:
                self._death = "the engine was closed"
                child.log.unlink(missing_ok=True)
            elif refusal is not None:
                self._death = refusal
                child.log.unlink(missing_ok=True)
            else:
                how = reason or f"the engine process {describe_exit(child.returncode)}"
                self._death = f"{self._model}: {how}{quote_log(child.log)}"
            waiting = list(self._runs.values())
        self._opening.put(UserError(refusal) if refusal is not None else EngineDiedError(self._death))
        for responses in waiting:
            responses.put(EngineDiedError(self._death))
        child.free()
        self._buried.set()


class _Child:
    """The engine process, leader of its group, with the socket to it and the log of all it prints."""

    def __init__(self, name: str, module: str, environment: Mapping[str, str], slots: Sequence[int]) -> None:
        handle, path = tempfile.mkstemp(prefix=f"steelyard-{name}-", suffix=".log")
        self.log = Path(path)
        self._socket, theirs = socket.socketpair()
        self.started = time.time()
        self.ended: float | None = None
        with os.fdopen(handle, "wb") as log, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno(), *slots],
                start_new_session=True,
                env={**environment, INHERITED: ",".join(map(str, slots))},
            )
        self.connection = Connection(os.dup(self._socket.fileno()))
        self.exited = threading.Event()
        self._sending = threading.Lock()
        self._signalling = threading.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def send(self, message: tuple[Any, ...]) -> None:
        """Send one message; raises OSError once the child is gone or its input ended."""
        with self._sending:
            self.connection.send(message)

    def end_input(self) -> None:
        """Tell the child to end: it sees the end of its input. Never blocks, even if the child hangs."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def reap(self) -> None:
        """Wait for the child, and end what is left of its group while the unreaped child still holds the group's id."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._signalling:
            self._kill_group()
            self._process.wait()
        deadline = time.monotonic() + GROUP_SECONDS
        while is_alive(self.pid) and time.monotonic() < deadline:
            time.sleep(0.02)  # killed, but still giving its memory back; the processes are not ours to wait for
        self.ended = time.time()
        self.exited.set()

    def kill(self) -> None:
        """End the whole group at once, if the child is not reaped yet."""
        with self._signalling:
            if self._process.returncode is None:
                self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def free(self) -> None:
        """Close the socket."""
        with self._sending:
            self.connection.close()
        self._socket.close()


def is_alive(group: int) -> bool:
    """Whether a process group has members other than zombies."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def child_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that imports our modules, from wherever it is started."""
    environment = {**inherited, "VLLM_NO_USAGE_STATS": "1", "NO_COLOR": "1", "PYTHONFAULTHANDLER": "1"}
    here = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (here, inherited.get("PYTHONPATH"))))
    return environment
