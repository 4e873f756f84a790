"""The lightweight engine: vLLM in a process of its own, on the devices of one placement. This side imports no vLLM."""

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

from core.errors import EngineDiedError
from core.request import Request, Response
from engines.engine import EngineConfig, EngineInfo
from engines.process_log import describe_exit, quote_log

REQUESTS_PER_MESSAGE = 256
CLOSE_SECONDS = 20.0  # vLLM takes about 5 for an orderly end
GROUP_SECONDS = 5.0  # what killed processes may take to vanish


class LightweightEngine:
    """An `engines.engine.Engine` in a child process that leads its own process group.

    A CUDA fault or an out-of-memory kill ends the child and never this process, and all memory comes back with it.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._lock = threading.Lock()  # guards _child, _closing, _death and _runs
        self._child: _Child | None = None
        self._closing = False
        self._death: str | None = None
        self._runs: dict[int, SimpleQueue[list[Response] | Exception | None]] = {}
        self._numbers = itertools.count()
        self._opening: SimpleQueue[dict[str, Any] | EngineDiedError] = SimpleQueue()
        self._ready = threading.Event()
        self._buried = threading.Event()

    def open(self) -> EngineInfo:
        """Start the process and load the model. Raises `core.errors.EngineDiedError` with the cause."""
        started = time.monotonic()
        try:
            child = self._start()
            self._send(child, "open", self._config)
            facts = self._opening.get()
        except BaseException:  # also Ctrl-C: nothing that was started may stay
            self.close()
            raise
        if isinstance(facts, EngineDiedError):
            self.close()
            raise facts
        return EngineInfo(
            engine="lightweight",
            load_seconds=time.monotonic() - started,
            detail={"pid": child.pid, "log": str(child.log), "devices": list(self._config.devices)},
            **facts,
        )

    def run(self, requests: Sequence[Request]) -> Iterator[Response]:
        """Yield one response per request as each finishes; see `engines.engine.Engine`."""
        number = next(self._numbers)
        responses: SimpleQueue[list[Response] | Exception | None] = SimpleQueue()
        with self._lock:
            child = self._child
            if self._death is not None or child is None or self._closing or not self._ready.is_set():
                raise EngineDiedError(self._death or "the engine is not open")
            self._runs[number] = responses
        finished = False
        try:
            for begin in range(0, len(requests), REQUESTS_PER_MESSAGE):
                self._send(child, "requests", number, list(requests[begin : begin + REQUESTS_PER_MESSAGE]))
            self._send(child, "start", number)
            while isinstance(batch := responses.get(), list):
                yield from batch
            finished = True
            if batch is not None:
                raise batch
        finally:
            with self._lock:
                self._runs.pop(number, None)
            if not finished:
                with contextlib.suppress(EngineDiedError):
                    self._send(child, "abort", number)

    def close(self) -> None:
        """End the process and its whole group, by force after 20 s or while it still loads. Safe to call twice."""
        with self._lock:
            self._closing = True
            child = self._child
        if child is None:
            return
        child.end_input()
        if not self._ready.is_set() or not child.exited.wait(CLOSE_SECONDS):
            child.kill()
        self._buried.wait()

    def _start(self) -> _Child:
        with self._lock:
            if self._closing or self._child is not None:
                raise EngineDiedError("the engine was closed" if self._closing else "the engine was opened before")
            child = self._child = _Child(child_environment(self._config, os.environ))
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
        with contextlib.suppress(EOFError, OSError):
            while reason is None:
                match child.connection.recv():
                    case ("ready", facts):
                        self._ready.set()
                        self._opening.put(facts)
                    case ("responses", run, responses):
                        self._hand(run, responses)
                    case ("done", run):
                        self._hand(run, None)
                    case ("broken", run, why):
                        self._hand(run, RuntimeError(f"the engine could not serve the run: {why}"))
                    case ("failed" | "died", why):
                        reason = why
        if not child.exited.wait(CLOSE_SECONDS):
            child.kill()
            child.exited.wait()
        self._bury(child, reason)

    def _hand(self, run: int, item: list[Response] | Exception | None) -> None:
        with self._lock:
            responses = self._runs.get(run)
        if responses is not None:  # else the caller stopped reading and an abort is on its way
            responses.put(item)

    def _bury(self, child: _Child, reason: str | None) -> None:
        """Tell everyone who waits, free the socket, and drop the log of an orderly end."""
        with self._lock:
            if self._closing and reason is None:
                self._death = "the engine was closed"
                child.log.unlink(missing_ok=True)
            else:
                how = reason or f"the engine process {describe_exit(child.returncode)}"
                self._death = f"{self._config.model}: {how}{quote_log(child.log)}"
            waiting = list(self._runs.values())
        self._opening.put(EngineDiedError(self._death))
        for responses in waiting:
            responses.put(EngineDiedError(self._death))
        child.free()
        self._buried.set()


class _Child:
    """The engine process, leader of its group, with the socket to it and the log of all it prints."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        handle, name = tempfile.mkstemp(prefix="steelyard-lightweight-", suffix=".log")
        self.log = Path(name)
        self._socket, theirs = socket.socketpair()
        with os.fdopen(handle, "wb") as log, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "engines.lightweight_process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=environment,
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


def child_environment(config: EngineConfig, inherited: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: this one's, the devices of ``config``, and our own modules importable from anywhere.

    Device indices count within ``CUDA_VISIBLE_DEVICES`` where that is set, as CUDA's own indices do.
    """
    environment = {**inherited, "VLLM_NO_USAGE_STATS": "1", "NO_COLOR": "1", "PYTHONFAULTHANDLER": "1"}
    here = str(Path(__file__).resolve().parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (here, inherited.get("PYTHONPATH"))))
    if config.device == "cuda" and config.devices:
        environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        visible = [name for name in inherited.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        names = [visible[device] if device < len(visible) else str(device) for device in config.devices]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(names)
    return environment
