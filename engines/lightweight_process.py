"""The lightweight engine's own process: ``python -m engines.lightweight_process FD`` serves one parent over a socket.

The parent sends (kind, …) tuples: ``("open", EngineConfig)``, ``("requests", run, [Request])`` any number of times,
``("start", run)`` and ``("abort", run)``; to have this process end, it closes its end of the socket. Back come
``("ready", facts)`` or ``("failed", reason)``, then ``("responses", run, [Response])`` and ``("done", run)``, or
``("broken", run, reason)`` for a run that failed by a fault of ours, and ``("died", reason)`` for the engine.
Pickle is safe here: both ends are the same program and the socket is theirs alone.

This process leads a process group that holds everything vLLM starts; the group ends with it. A parent that was killed
closes its end of the socket too, so an orphan ends like one that was told to.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from core.errors import EngineDiedError
from core.request import Request, Response
from engines.engine import EngineConfig

if TYPE_CHECKING:
    from engines.vllm_io import Session

FLUSH_SECONDS = 0.02  # responses that finish within this time travel together
END_SECONDS = 15.0  # what an orderly end may take


class Server:
    """Runs requests on one `Session` for one parent."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self._requests: defaultdict[int, list[Request]] = defaultdict(list)
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._outbox: defaultdict[int, list[Response]] = defaultdict(list)
        self._flushing: asyncio.TimerHandle | None = None
        self._loaded = threading.Event()

    async def serve(self) -> int:
        """Serve until told to close or until the engine dies; the exit status."""
        # A thread of its own: loading a model blocks this loop for a minute, and the parent may go away meanwhile.
        threading.Thread(target=self._receive, args=(asyncio.get_running_loop(),), daemon=True).start()
        _, config = await self._inbox.get()
        session = await self._open(config)
        if session is None:
            return 1
        try:
            return await self._serve(session)
        finally:
            for task in self._runs.values():
                task.cancel()
            await session.close()

    async def _open(self, config: EngineConfig) -> Session | None:
        try:
            from engines.vllm_io import Session

            session = await Session.open(config)
        except Exception as error:
            traceback.print_exc()
            self._send("failed", str(error))
            return None
        self._loaded.set()
        facts = {"vllm_version": session.vllm_version, "max_model_len": session.max_model_len, "dtype": session.dtype}
        self._send("ready", facts)
        return session

    async def _serve(self, session: Session) -> int:
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
                case ("close",):
                    return 0

    async def _run(self, session: Session, run: int, requests: Sequence[Request]) -> None:
        responses = session.run(requests)
        try:
            async for response in responses:
                self._put(run, response)
            self._flush()
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
            self._connection.send(message)
        except OSError:
            self._inbox.put_nowait(("close",))  # the parent is gone

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while True:
                loop.call_soon_threadsafe(self._inbox.put_nowait, self._connection.recv())
        except (EOFError, OSError):
            if not self._loaded.is_set():  # the loop is busy loading the model and would not hear of it
                end_group()
            threading.Timer(END_SECONDS, end_group).start()
            loop.call_soon_threadsafe(self._inbox.put_nowait, ("close",))


def end_group() -> None:
    """End this process and all that vLLM started from it, at once."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main() -> int:
    """Serve the parent at the other end of the inherited socket."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)  # else vLLM's processes would keep the socket open after this one
    if os.getpgrp() != os.getpid():
        raise SystemExit("engines.lightweight_process must lead a process group of its own")
    with Connection(descriptor) as connection:
        return asyncio.run(Server(connection).serve())


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is shut down; vLLM's finalizers would only fail on a half torn down interpreter and litter the log.
    os._exit(status)
