"""The child side of `engines.process.engine.ProcessEngine`, which serves one parent over an inherited socket.

The parent sends (kind, …) tuples: ``("slots", count)`` and with the next byte so many descriptors, which this process keeps until
it ends (`engines.host.slots`), ``("open", what to open)``, ``("requests", run, [Request])`` any number of times,
``("start", run)`` and ``("abort", run)``; to have this process end, it closes its end of the socket, after ``("keep",)``
where what outlives this process may do so. Back come ``("ready", facts)``, ``("failed", reason)`` or ``("refused",
reason)`` for what the user can mend, then ``("responses", run, [Response])`` and ``("done", run)``, or ``("broken", run,
reason)`` for a run that failed by a fault of ours, and ``("died", reason)`` for the engine; and in between ``("stats",
figures)``, see `engines.engine.Engine.stats`, at each run's end and about once a second while they change.
Pickle is safe here: both ends are the same program and the socket is theirs alone.

This process leads a process group that holds everything it starts; the group ends with it. A parent that was killed
closes its end of the socket too, so an orphan ends like one that was told to.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Protocol

from core.errors import EngineDiedError, UserError
from core.request import Request, Response
from engines.host.folder import clear_up

FLUSH_SECONDS = 0.02  # responses that finish within this time travel together
STATS_SECONDS = 1.0


class EngineSession(Protocol):
    """A loaded model in this process or behind it."""

    @property
    def facts(self) -> dict[str, Any]:
        """The fields of `engines.engine.EngineInfo` that this side knows."""

    def run(self, requests: Sequence[Request]) -> AsyncGenerator[Response, None]:
        """Yield one response per request; raises `core.errors.EngineDiedError` when the engine is gone."""

    def stats(self) -> dict[str, float]:
        """Return the latest known figures of the engine; see `engines.engine.Engine.stats`."""

    async def close(self, *, keep: bool) -> None:
        """Free everything, but for what may be kept for the next campaign."""


@dataclass(eq=False)
class Server:
    """Runs requests on one session for one parent; see `run_server`. To be made within an event loop."""

    connection: Connection
    open_session: Callable[[Any], Awaitable[EngineSession]]
    end_seconds: float
    blocks_while_opening: bool
    prepare: Callable[[], None] | None

    def __post_init__(self) -> None:
        self._began = time.time()
        self._keep = False
        self._inbox: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self._requests: defaultdict[int, list[Request]] = defaultdict(list)
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._outbox: defaultdict[int, list[Response]] = defaultdict(list)
        self._flushing: asyncio.TimerHandle | None = None
        self._stats: dict[str, float] = {}  # as the parent knows them
        self._loaded = threading.Event()

    async def serve(self) -> int:
        """Serve until told to close or until the engine dies. Returns the exit status."""
        # On a thread: loading a model may block this loop for a minute, and the parent may go away meanwhile.
        threading.Thread(target=self._receive, args=(asyncio.get_running_loop(),), daemon=True).start()
        if self.prepare is not None:
            self.prepare()
        _, what = await self._inbox.get()
        session = await self._open(what)
        if session is None:
            return 1
        reporting = asyncio.create_task(self._report(session))
        try:
            return await self._serve(session)
        finally:
            reporting.cancel()
            for task in self._runs.values():
                task.cancel()
            await session.close(keep=self._keep)

    async def _open(self, what: Any) -> EngineSession | None:
        opening = asyncio.ensure_future(self.open_session(what))
        closing = asyncio.ensure_future(self._inbox.get())  # nothing but the end comes before the engine is ready
        await asyncio.wait({opening, closing}, return_when=asyncio.FIRST_COMPLETED)
        if closing.done():
            opening.cancel()
        else:
            closing.cancel()
        try:
            session = await opening
        except asyncio.CancelledError:
            return None
        except UserError as error:
            self._send("refused", str(error))
            return None
        except Exception as error:
            traceback.print_exc()
            self._send("failed", str(error))
            return None
        self._loaded.set()
        self._send("ready", session.facts)
        return session

    async def _serve(self, session: EngineSession) -> int:
        while True:
            match await self._inbox.get():
                case ("requests", run, requests):
                    self._requests[run] += requests
                case ("start", run):
                    task = asyncio.create_task(self._run(session, run, self._requests.pop(run, [])))
                    self._runs[run] = task
                case ("abort", run):
                    self._requests.pop(run, None)
                    if run in self._runs:
                        self._runs[run].cancel()
                case ("died", reason):
                    self._send("died", reason)
                    return 1
                case ("keep",):
                    self._keep = True
                case ("close",):
                    return 0

    async def _run(self, session: EngineSession, run: int, requests: Sequence[Request]) -> None:
        responses = session.run(requests)
        try:
            async for response in responses:
                self._put(run, response)
            self._flush()
            self._send_stats(session)
            self._send("done", run)
        except EngineDiedError as error:
            self._flush()
            self._inbox.put_nowait(("died", str(error)))
        except Exception as error:
            traceback.print_exc()
            self._flush()
            self._send("broken", run, f"{type(error).__name__}: {error}")
        finally:
            await responses.aclose()
            self._outbox.pop(run, None)
            del self._runs[run]

    async def _report(self, session: EngineSession) -> None:
        while True:
            self._send_stats(session)
            await asyncio.sleep(STATS_SECONDS)

    def _send_stats(self, session: EngineSession) -> None:
        if (stats := session.stats()) != self._stats:
            self._stats = stats
            self._send("stats", stats)

    def _put(self, run: int, response: Response) -> None:
        self._outbox[run].append(response)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        for run, responses in self._outbox.items():
            self._send("responses", run, responses)
        self._outbox.clear()

    def _send(self, *message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError:
            self._inbox.put_nowait(("close",))  # the parent is gone

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while True:
                message = self.connection.recv()
                if message[0] == "slots":
                    with socket.socket(fileno=os.dup(self.connection.fileno())) as ours:
                        socket.recv_fds(ours, 1, message[1])  # open until this process ends
                else:
                    loop.call_soon_threadsafe(self._inbox.put_nowait, message)
        except (EOFError, OSError):
            if not self.end_seconds or (self.blocks_while_opening and not self._loaded.is_set()):
                clear_up(self._began)
                end_group()
            threading.Timer(self.end_seconds, end_group).start()
            loop.call_soon_threadsafe(self._inbox.put_nowait, ("close",))


def end_group() -> None:
    """End this process and all that it started, at once."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def run_server(
    open_session: Callable[[Any], Awaitable[EngineSession]],
    *,
    end_seconds: float,
    blocks_while_opening: bool,
    prepare: Callable[[], None] | None = None,
) -> NoReturn:
    """Serve the parent at the other end of the inherited socket, whose number is the first argument, and exit.

    An orderly end may take ``end_seconds``; with 0 all ends at once when the parent leaves. ``blocks_while_opening`` says that
    ``open_session`` holds the event loop, so that a parent that leaves meanwhile can only be answered so too. ``prepare`` is
    called first, before there is anything to open, and holds the loop as well.
    """
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)  # else processes started here would keep the socket open after this one
    if os.getpgrp() != os.getpid():
        raise SystemExit("an engine's process must lead a process group of its own")
    with Connection(descriptor) as connection:
        server = Server(connection, open_session, end_seconds, blocks_while_opening, prepare)
        status = asyncio.run(server.serve())
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is shut down; finalizers would only fail on a half torn down interpreter and litter the log.
    os._exit(status)
