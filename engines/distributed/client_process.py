"""The distributed engine's own process: ``python -m engines.distributed.client_process FD``; see `engines.process.server`.

It finds or starts the cluster, finds or creates the model's service, and passes requests and responses on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import tempfile
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_fixed

from core.errors import EngineDiedError, SteelyardError
from core.request import Request, Response
from engines.distributed.cluster import Cluster, attach, driver_environment
from engines.distributed.engine import CLOSE_SECONDS, Opening, service_name
from engines.distributed.ray_node import RayNode, start_node
from engines.distributed.service import CALLS_AT_ONCE, NAMESPACE, RENEW_SECONDS, ModelService
from engines.process.server import STATS_SECONDS, run_server

FIND_SECONDS = 120.0  # a service that is just ending is waited for


class RemoteSession:
    """One client of one model service; see `engines.process.server.EngineSession`."""

    def __init__(self, opening: Opening, cluster: Cluster) -> None:
        self.facts: dict[str, Any] = {}
        self._opening = opening
        self._cluster = cluster
        self._client = secrets.token_hex(8)
        self._service: Any = None
        self._node: RayNode | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stats: dict[str, float] = {}
        self._numbers = itertools.count()

    async def join(self) -> None:
        """Make this machine part of the cluster, with nothing to run on. Raises `core.errors.EngineDiedError`."""
        log = Path(tempfile.gettempdir()) / f"steelyard-ray-node-{self._client}.log"
        try:
            self._node = await start_node(
                [f"--address={self._cluster.address}", "--num-cpus=0", "--num-gpus=0"], log, {}
            )
        except (OSError, RuntimeError) as error:
            raise EngineDiedError(f"the Ray cluster at {self._cluster.address} cannot be joined: {error}") from error
        log.unlink(missing_ok=True)

    async def open(self) -> None:
        """Lease the service, which is created where there is none, and wait until it is loaded."""
        name = service_name(self._opening.config)
        async with asyncio.timeout(FIND_SECONDS):
            # One that is just ending frees its name in a moment.
            async for attempt in AsyncRetrying(retry=retry_if_exception_type(RayActorError), wait=wait_fixed(0.2)):
                with attempt:
                    await self._make_room(name)
                    service = self._get_or_create(name)
                    creator = await service.attach.remote(self._client)
            self._service = service
        self._tasks.append(asyncio.create_task(self._renew()))
        try:
            facts = await self._service.ready.remote()
        except RayError as error:
            raise cause_of(error) from None
        detail = {**facts["detail"], "ray_address": self._cluster.address, "service": name}
        self.facts = {**facts, "reused": creator != self._client, "detail": detail}
        self._tasks.append(asyncio.create_task(self._follow()))

    async def run(self, requests: Sequence[Request]) -> AsyncGenerator[Response, None]:
        """Yield one response per request as each finishes."""
        number = str(next(self._numbers))
        finished = False
        try:
            async for reference in self._service.run.remote(self._client, number, list(requests)):
                for response in await reference:
                    yield response
            finished = True
        except RayError as error:
            raise cause_of(error) from None
        finally:
            if not finished:
                with contextlib.suppress(RayError):
                    await self._service.abort.remote(self._client, number)

    def stats(self) -> dict[str, float]:
        """Return figures of the service, with all its clients, and of the cluster; at most some seconds old."""
        return self._stats

    async def close(self, *, keep: bool) -> None:
        """Give up the lease and the cluster; at idle time 0 both have ended on return, where nobody else uses them."""
        idle_seconds = self._opening.idle_seconds if keep else 0.0
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._service is not None:
            with contextlib.suppress(RayError):  # the end of the actor is the answer where it ends
                await self._service.detach.remote(self._client, idle_seconds)
        await asyncio.to_thread(ray.shutdown)
        if self._node is not None:
            await self._node.end()
        await asyncio.to_thread(self._cluster.leave, idle_seconds)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with contextlib.suppress(RayError):  # a run of requests fails with it
                await self._service.attach.remote(self._client)

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(RayError):  # a run of requests fails with it
                figures = await self._service.stats.remote()
                asking = asyncio.ensure_future(asyncio.to_thread(cluster_figures))
                try:
                    self._stats = {**figures, **await asyncio.shield(asking)}
                finally:
                    await asyncio.wait([asking])  # Ray is not shut down under it
            await asyncio.sleep(STATS_SECONDS)

    async def _make_room(self, name: str) -> None:
        """End unused services where this model needs their GPUs."""
        config = self._opening.config
        needed = config.tensor_parallel * config.pipeline_parallel
        listed = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
        names = [each["name"] for each in listed if each["namespace"] == NAMESPACE]
        if name in names or ray.available_resources().get("GPU", 0) >= needed:
            return
        for other in names:
            with contextlib.suppress(RayError, ValueError):  # ended, or is ending
                await ray.get_actor(other, NAMESPACE).end_if_unused.remote()

    def _get_or_create(self, name: str) -> Any:
        resource = self._opening.cluster.service_resource
        actor = ray.remote(concurrency_groups={"control": CALLS_AT_ONCE})(ModelService)
        environment = {**driver_environment(self._opening.cluster), "RAY_ADDRESS": self._cluster.address}
        return actor.options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=CALLS_AT_ONCE,
            resources=None if resource is None else {resource: 0.001},
            runtime_env={"env_vars": environment},
        ).remote(self._opening.config, self._client)


def cluster_figures() -> dict[str, float]:
    """Return figures of the cluster as a whole: living nodes, CPUs and GPUs, and those of them that are taken."""
    there, free = ray.cluster_resources(), ray.available_resources()
    figures = {"ray_nodes": float(sum(node["Alive"] for node in ray.nodes()))}
    for kind in ("CPU", "GPU"):
        total = float(there.get(kind, 0.0))
        figures[f"ray_{kind.lower()}s"] = total
        figures[f"ray_{kind.lower()}s_used"] = total - float(free.get(kind, 0.0))
    return figures


def cause_of(error: RayError) -> SteelyardError:
    """Return what a failed call means: our own error from the other side, or the end of the service."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, SteelyardError):
        return error.cause
    if isinstance(error, RayActorError):
        return EngineDiedError(f"the model service ended: {str(error).strip().splitlines()[-1]}")
    return EngineDiedError(f"the model service failed: {error}")


async def open_session(opening: Opening) -> RemoteSession:
    """Attach to the cluster and the service; both are given back where this fails or is cancelled."""
    attaching = asyncio.ensure_future(asyncio.to_thread(attach, opening.cluster, service_name(opening.config)))
    try:
        cluster = await asyncio.shield(attaching)
    except asyncio.CancelledError:
        os._exit(0)  # the daemon sees this process go and ends what it has begun
    session = RemoteSession(opening, cluster)
    try:
        if opening.cluster.service_resource is not None:
            await session.join()
        await asyncio.to_thread(connect, cluster.address)
        await session.open()
    except BaseException:
        await asyncio.shield(session.close(keep=False))
        raise
    return session


def connect(address: str) -> None:
    """Become a driver of the cluster. Raises `core.errors.EngineDiedError` where it does not take one."""
    try:
        # Ray's workers import from the driver's current directory first, which may have an `engines/` of the user's.
        with contextlib.chdir("/"):
            ray.init(address=address, namespace=NAMESPACE, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, RayError, RuntimeError) as error:
        raise EngineDiedError(f"the Ray cluster at {address} refused this process: {error}") from error


if __name__ == "__main__":
    run_server(open_session, end_seconds=CLOSE_SECONDS, blocks_while_opening=False)
