"""The model service: tensor-parallel vLLM in a named, detached Ray actor that outlives the campaign it was made for.

vLLM's engine core runs in a child process of the actor as a Ray driver of its own, and makes the placement group and
the workers. They belong to that driver, so Ray takes them back when it ends, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from core.errors import EngineDiedError, UserError
from core.request import Request, Response
from engines.distributed.ray_node import on_every_node
from engines.engine import EngineConfig
from engines.process.child import quote_log

if TYPE_CHECKING:
    from engines.session.session import Session

NAMESPACE = "steelyard"
FLUSH_SECONDS = 0.02  # responses that finish within this time travel as one object
WATCH_SECONDS = 1.0
CLOSE_SECONDS = 20.0  # vLLM takes about 5 for an orderly end
CALLS_AT_ONCE = 1000  # of runs, and of control methods


class ModelService:
    """One loaded model. Ray runs ``ready`` and ``run`` on one event loop and the "control" methods on another.

    Loading blocks its loop for a minute; the control methods answer meanwhile. A watching thread ends the actor once it is unused,
    so a service whose clients were all killed ends too.
    """

    def __init__(self, config: EngineConfig, creator: str) -> None:
        self._config = config
        self._creator = creator
        self._log = Path("/proc/self/fd/2").readlink()  # where Ray sends this process's stderr, and its children's
        self._lock = threading.Lock()  # guards _leases and _ending
        self._leases = ServiceLeases(unused_since=time.monotonic() + LEASE_SECONDS)
        self._ending = False
        self._changed = threading.Event()
        self._death: str | None = None
        self._session: Session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loading: asyncio.Task[dict[str, Any]] | None = None
        self._runs: dict[tuple[str, str], asyncio.Task[None]] = {}
        threading.Thread(target=self._watch, name="steelyard-watch", daemon=True).start()

    @ray.method(concurrency_group="control")
    async def attach(self, client: str) -> str:
        """Acquire or renew a lease. Returns the service's creator, and never returns where the service ends."""
        with self._lock:
            ending = self._ending
            if not ending:
                self._leases.renew(client, time.monotonic())
        if ending:
            await _the_end()
        return self._creator

    @ray.method(concurrency_group="control")
    async def detach(self, client: str, idle_seconds: float) -> None:
        """Give up a lease and abort the client's runs. Never returns where it was the last one and ``idle_seconds`` is 0: the
        caller sees the actor's death once the engine is closed.
        """
        self._abort([run for run in list(self._runs) if run[0] == client])
        with self._lock:
            self._leases.drop(client, idle_seconds, time.monotonic())
            over = self._is_over()
        self._changed.set()
        if over:
            await _the_end()

    @ray.method(concurrency_group="control")
    async def end_if_unused(self) -> None:
        """End at once unless somebody holds a lease: another model wants the devices."""
        with self._lock:
            used = bool(self._leases.heard)
            self._ending |= not used
        self._changed.set()
        if not used:
            await _the_end()

    @ray.method(concurrency_group="control")
    async def abort(self, client: str, run: str) -> None:
        """Stop a run; its stream ends early."""
        self._abort([(client, run)])

    @ray.method(concurrency_group="control")
    async def stats(self) -> dict[str, float]:
        """Return the latest figures of the loaded model; see `engines.engine.Engine.stats`. Empty before it is loaded."""
        return {} if self._session is None else self._session.stats()

    async def ready(self) -> dict[str, Any]:
        """Load the model if nobody has. Returns its facts; raises `core.errors.EngineDiedError` with the cause."""
        if self._loading is None:
            self._loop = asyncio.get_running_loop()
            self._loading = asyncio.create_task(self._load())
        facts = await asyncio.shield(self._loading)
        await self._feed([], asyncio.Queue())  # raises where the engine has died unnoticed
        return facts

    async def run(self, client: str, run: str, requests: Sequence[Request]) -> AsyncIterator[list[Response]]:
        """Yield the responses in batches as they finish; ends early when aborted."""
        arrived: asyncio.Queue[Response | None] = asyncio.Queue()
        feeding = asyncio.create_task(self._feed(requests, arrived, client))
        self._runs[client, run] = feeding
        try:
            more = True
            while more:
                batch = [await arrived.get()]
                await asyncio.sleep(FLUSH_SECONDS)
                while not arrived.empty():
                    batch.append(arrived.get_nowait())
                more = batch[-1] is not None
                if responses := [response for response in batch if response is not None]:
                    yield responses
            await asyncio.wait([feeding])
            if not feeding.cancelled():
                feeding.result()
        finally:
            feeding.cancel()
            del self._runs[client, run]

    async def _load(self) -> dict[str, Any]:
        from engines.session.session import Session

        try:
            config = await asyncio.to_thread(on_every_node, self._config)
            self._session = await Session.open(config, executor="ray")
        except UserError as error:
            self._death = str(error)
            raise
        except EngineDiedError as error:
            self._death = f"{error}{quote_log(self._log)}"
            raise EngineDiedError(self._death) from None
        return self._session.facts

    async def _feed(
        self, requests: Sequence[Request], arrived: asyncio.Queue[Response | None], client: str = ""
    ) -> None:
        """Put every response, and None at the end of them."""
        try:
            if self._session is None:
                raise EngineDiedError(self._death or f"{self._config.model}: the service has not loaded it")
            responses = self._session.run(requests, client)
            async with contextlib.aclosing(responses):
                async for response in responses:
                    arrived.put_nowait(response)
        except EngineDiedError as error:
            if not self._ending and self._death is None:
                self._death = f"{self._config.model}: {error}{quote_log(self._log)}"
            raise EngineDiedError(self._death or str(error)) from None
        finally:
            arrived.put_nowait(None)

    def _abort(self, runs: Sequence[tuple[str, str]]) -> None:
        for run in runs:
            if self._loop is not None and (feeding := self._runs.get(run)):
                self._loop.call_soon_threadsafe(feeding.cancel)

    def _is_over(self) -> bool:
        if self._death is not None:  # it stays to tell why, but no longer than somebody holds a lease
            self._leases.idle_seconds = 0.0
        self._ending |= self._leases.is_over(time.monotonic())
        return self._ending

    def _watch(self) -> None:
        """Wait until the service is unused, close the engine and end the actor."""
        while True:
            with self._lock:
                if self._is_over():
                    break
            self._changed.wait(WATCH_SECONDS)
            self._changed.clear()
        try:
            if self._session is not None and self._loop is not None:
                asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result(CLOSE_SECONDS)
        finally:  # a close that failed or hangs must not keep the devices
            ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


async def _the_end() -> None:
    """Never return: the caller learns of the end of this process when it has come."""
    await asyncio.Event().wait()


LEASE_SECONDS = 60.0  # a client not heard of for so long is gone
RENEW_SECONDS = 10.0


@dataclass
class ServiceLeases:
    """Clients by id with the time they were last heard of, in seconds. Not thread-safe.

    ``idle_seconds`` is how long the service outlives its last client, by that client's wish. Only an orderly end keeps the service:
    a client that vanishes leaves nothing behind.
    """

    unused_since: float
    idle_seconds: float = 0.0
    heard: dict[str, float] = field(default_factory=dict)

    def renew(self, client: str, now: float) -> None:
        """Note that ``client`` is there."""
        self.heard[client] = now
        self.idle_seconds = 0.0

    def drop(self, client: str, idle_seconds: float, now: float) -> None:
        """Note that ``client`` has left."""
        self.idle_seconds = idle_seconds
        if self.heard.pop(client, None) is not None:
            self.unused_since = now

    def is_over(self, now: float) -> bool:
        """Forget silent clients, and return whether the service has outlived its last one by its idle time."""
        for client, heard in list(self.heard.items()):
            if now - heard > LEASE_SECONDS:
                del self.heard[client]
                self.unused_since = now
        return not self.heard and now - self.unused_since >= self.idle_seconds
