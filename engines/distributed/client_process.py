"""The distributed engine's own process: ``python -m engines.distributed.client_process FD``; see `engines.process_server`.

Finds or starts the cluster, finds or creates the model's service, and passes requests and responses on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from core.errors import EngineDiedError, SteelyardError
from core.request import Request, Response
from engines.distributed.cluster import Cluster, attach, driver_environment, make_room
from engines.distributed.engine import CLOSE_SECONDS, Opening
from engines.distributed.lease import RENEW_SECONDS
from engines.distributed.service import CONTROLS_AT_ONCE, NAMESPACE, RUNS_AT_ONCE, ModelService
from engines.engine import EngineConfig
from engines.process_server import run_server

FIND_SECONDS = 120.0  # a service that is just ending is waited for


class RemoteSession:
    """One client of one model service; see `engines.process_server.EngineSession`."""

    def __init__(self, opening: Opening, cluster: Cluster) -> None:
        self.facts: dict[str, Any] = {}
        self._opening = opening
        self._cluster = cluster
        self._client = secrets.token_hex(8)
        self._service: Any = None
        self._renewing: asyncio.Task[None] | None = None
        self._numbers = itertools.count()

    @property
    def _wish(self) -> float:
        """While a campaign runs, a client that vanishes leaves nothing behind; only an orderly end keeps the service."""
        return 0.0

    async def open(self) -> None:
        """Take a lease on the service, which is created where there is none, and wait until it is loaded."""
        name = service_name(self._opening.config)
        async with asyncio.timeout(FIND_SECONDS):
            while self._service is None:
                await self._make_room(name)
                service = self._get_or_create(name)
                try:
                    found = await service.attach.remote(self._client, self._wish)
                    self._service = service
                except RayActorError:
                    await asyncio.sleep(0.2)  # it was ending; its name is free in a moment
        self._renewing = asyncio.create_task(self._renew())
        try:
            facts = await self._service.ready.remote()
        except RayError as error:
            raise cause_of(error) from None
        detail = {"ray_address": self._cluster.address, "service": name}
        self.facts = {**facts, "reused": found["creator"] != self._client, "detail": detail}

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

    async def close(self, *, keep: bool) -> None:
        """Give the lease and the cluster up; at idle time 0 both have ended on return, where nobody else uses them."""
        idle_seconds = self._opening.idle_seconds if keep else 0.0
        if self._renewing is not None:
            self._renewing.cancel()
        if self._service is not None:
            with contextlib.suppress(RayError):  # the end of the actor is the answer where it ends
                await self._service.detach.remote(self._client, idle_seconds)
        await asyncio.to_thread(ray.shutdown)
        await asyncio.to_thread(self._cluster.leave, idle_seconds)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with contextlib.suppress(RayError):  # whoever runs requests hears of it
                await self._service.attach.remote(self._client, self._wish)

    async def _make_room(self, name: str) -> None:
        """End services that nobody uses where this model needs their GPUs."""
        config = self._opening.config
        needed = config.tensor_parallel * config.pipeline_parallel
        names = [str(each["name"]) for each in await asyncio.to_thread(named_services)]
        if name in names or ray.available_resources().get("GPU", 0) >= needed:
            return
        for other in names:
            with contextlib.suppress(RayError, ValueError):  # ended, or is ending
                await ray.get_actor(other, NAMESPACE).end_if_unused.remote()

    def _get_or_create(self, name: str) -> Any:
        actor = ray.remote(concurrency_groups={"control": CONTROLS_AT_ONCE})(ModelService)
        environment = {**driver_environment(self._opening.cluster), "RAY_ADDRESS": self._cluster.address}
        return actor.options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=RUNS_AT_ONCE,
            runtime_env={"env_vars": environment},
        ).remote(self._opening.config, self._client)


def service_name(config: EngineConfig) -> str:
    """Name of the actor that serves ``config``: the same for the same model loaded the same way."""
    shared = replace(config, devices=())
    digest = hashlib.sha256(json.dumps(asdict(shared), sort_keys=True, default=str).encode()).hexdigest()
    return f"{Path(config.model).name}-{digest[:16]}"


def named_services() -> list[dict[str, Any]]:
    """All services of the cluster, whoever made them."""
    listed: list[dict[str, Any]] = ray.util.list_named_actors(all_namespaces=True)
    return [each for each in listed if each["namespace"] == NAMESPACE]


def cause_of(error: RayError) -> SteelyardError:
    """What a failed call means: our own error from the other side, or the end of the service."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, SteelyardError):
        return error.cause
    if isinstance(error, RayActorError):
        return EngineDiedError(f"the model service ended: {str(error).strip().splitlines()[-1]}")
    return EngineDiedError(f"the model service failed: {error}")


async def open_session(opening: Opening) -> RemoteSession:
    """Attach to the cluster and the service. Whatever was taken is given back where this fails or is cancelled."""
    if opening.cluster.address is None:
        await asyncio.to_thread(make_room, opening.cluster)
    attaching = asyncio.ensure_future(asyncio.to_thread(attach, opening.cluster, Path(opening.config.model).name))
    try:
        cluster = await asyncio.shield(attaching)
    except asyncio.CancelledError:
        os._exit(0)  # the keeper sees this process go and ends what it has begun
    session = RemoteSession(opening, cluster)
    try:
        await asyncio.to_thread(connect, cluster.address)
        await session.open()
    except BaseException:
        await asyncio.shield(session.close(keep=False))
        raise
    return session


def connect(address: str) -> None:
    """Become a driver of the cluster. Raises `core.errors.EngineDiedError` where it does not take one."""
    try:
        ray.init(address=address, namespace=NAMESPACE, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, RayError, RuntimeError) as error:
        raise EngineDiedError(f"the Ray cluster at {address} refused this process: {error}") from error


if __name__ == "__main__":
    run_server(open_session, end_seconds=CLOSE_SECONDS, blocks_while_opening=False)
