"""The parent side of an engine that lives in a process of its own. Imports neither vLLM nor Ray."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any

from core.child import with_our_modules
from core.errors import EngineDiedError, UserError
from core.redact import redact
from core.request import Request, Response
from engines.control import Stop
from engines.engine import EngineInfo
from engines.host.folder import compiled_folder
from engines.process.child import OUT_OF_MEMORY, Child, batches, describe_exit, oom_kills, quote_log

_Item = list[Response] | Exception | Stop | None  # what a run hears: responses, its end or a fault

EXIT_SECONDS = 5.0  # what a process that has closed its socket may take to exit


@dataclass(eq=False, repr=False)
class ProcessEngine:
    """An `engines.engine.Engine` in a child process that leads its own process group; see `engines.process.server`.

    ``name`` is the engine's, ``module`` what the child runs, ``opening`` what it opens with (pickled), ``model`` the
    name in messages, ``slots`` the descriptors of its devices (`engines.host.slots`), which the child holds too from ``open`` on. A
    fault or an out-of-memory kill ends the child and never this process, and all it held comes back with it. An orderly end may
    take ``close_seconds``, with 0 the child is killed; so it is while it still loads unless ``orderly_while_loading``.
    """

    name: str
    module: str
    opening: object
    _: KW_ONLY
    model: str
    environment: Mapping[str, str] = field(default_factory=dict)
    close_seconds: float = 0.0
    orderly_while_loading: bool = False
    slots: Sequence[int] = ()

    def __post_init__(self) -> None:
        self._lock = threading.Lock()  # guards _child, _closing, _death and _runs
        self._child: Child | None = None
        self._started = 0.0
        self._oom_kills = 0  # of the kernel, by then
        self._closing = False
        self._death: str | None = None
        self._runs: dict[int, SimpleQueue[_Item]] = {}
        self._numbers = itertools.count()
        self._stats: dict[str, float] = {}
        self._opened: SimpleQueue[dict[str, Any] | Exception] = SimpleQueue()
        self._ready = threading.Event()
        self._buried = threading.Event()

    def open(self) -> EngineInfo:
        """Start the process and load the model.

        Raises `core.errors.EngineDiedError` with the cause, `core.errors.UserError` for what the user can mend.
        """
        started = time.monotonic()
        try:
            child = self._start()
            if self.slots:
                self._deliver(child, partial(child.send_slots, self.slots))
            self._send(child, "open", self.opening)
            facts = self._opened.get()
        except BaseException:  # also Ctrl-C: nothing that was started may stay
            self.close()
            raise
        if isinstance(facts, Exception):
            self.close()
            raise facts
        detail = {"pid": child.pid, "log": str(child.log), **facts.pop("detail", {})}
        seconds = 0.0 if facts.get("reused") else time.monotonic() - started
        return EngineInfo(engine=self.name, load_seconds=seconds, detail=detail, **facts)

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
            for batch in batches(requests):
                self._send(child, "requests", number, batch)
            self._send(child, "start", number)
            with stopping:
                while isinstance(heard := responses.get(), list):
                    yield from heard
            finished = not isinstance(heard, Stop)
            if isinstance(heard, Exception):
                raise heard
        finally:
            with self._lock:
                self._runs.pop(number, None)
            if not finished:
                with contextlib.suppress(EngineDiedError):
                    self._send(child, "abort", number)

    def stats(self) -> dict[str, float]:
        """See `engines.engine.Engine.stats`. Acquires no lock: ``open`` holds it while the process starts."""
        child = self._child
        if child is None:
            return {}
        ended = {} if child.ended is None else {"ended": child.ended}
        return {**self._stats, "pid": float(child.pid), "started": self._started, **ended}

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
        orderly = self.orderly_while_loading or self._ready.is_set()
        if not orderly or not child.exited.wait(self.close_seconds):
            child.kill()
        self._buried.wait()

    def _start(self) -> Child:
        with self._lock:
            if self._closing or self._child is not None:
                raise EngineDiedError("the engine was closed" if self._closing else "the engine was opened before")
            self._started = time.time()
            self._oom_kills = oom_kills()
            child = self._child = self.process()
        threading.Thread(target=self._receive, args=(child,), name="steelyard-receive", daemon=True).start()
        return child

    def process(self) -> Child:
        """Return a process that nobody uses yet."""
        return Child(self.name, self.module, self.environment)

    def _send(self, child: Child, *message: Any) -> None:
        self._deliver(child, partial(child.send, message))

    def _deliver(self, child: Child, send: Callable[[], None]) -> None:
        try:
            send()
        except OSError:
            self._buried.wait()
            raise EngineDiedError(self._death) from None

    def _receive(self, child: Child) -> None:
        """Hand on what the child sends until it is gone, then bury it."""
        reason: str | None = None
        refusal: str | None = None
        with contextlib.suppress(EOFError, OSError):
            while reason is None:
                match child.connection.recv():
                    case ("ready", facts):
                        child.note_shared_memory()
                        self._ready.set()
                        self._opened.put(facts)
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
        patience = self.close_seconds if reason else max(self.close_seconds, EXIT_SECONDS)
        if not child.exited.wait(patience):
            child.kill()
            child.exited.wait()
        self._bury(child, reason, refusal)

    def _hand(self, run: int, item: list[Response] | Exception | None) -> None:
        with self._lock:
            responses = self._runs.get(run)
        if responses is not None:  # else the caller stopped reading and an abort is on its way
            responses.put(item)

    def _bury(self, child: Child, reason: str | None, refusal: str | None) -> None:
        """Tell all callers that wait, free the socket, and drop the log of an orderly end."""
        with self._lock:
            if self._closing and reason is None:
                self._death = "the engine was closed"
                child.log.unlink(missing_ok=True)
            elif refusal is not None:
                self._death = refusal
                child.log.unlink(missing_ok=True)
            else:
                how = reason or f"the engine process {describe_exit(child.returncode)}"
                memory = OUT_OF_MEMORY if oom_kills() > self._oom_kills else ""
                self._death = f"{self.model}: {how}{memory}{quote_log(child.log)}"
            waiting = list(self._runs.values())
        self._opened.put(UserError(refusal) if refusal is not None else EngineDiedError(self._death))
        for responses in waiting:
            responses.put(EngineDiedError(self._death))
        child.free()
        self._buried.set()


def child_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that imports our modules and vLLM, from wherever it is started.

    Raises `core.errors.UserError` where the folder for compiled code is somebody else's.
    """
    environment = {
        **with_our_modules(inherited),
        "VLLM_NO_USAGE_STATS": "1",
        "NO_COLOR": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    if not inherited.get("TORCHINDUCTOR_CACHE_DIR"):
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(compiled_folder())
    return environment
