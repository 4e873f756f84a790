"""The daemon of a local Ray cluster: ``python -m engines.distributed.cluster_daemon FD SPEC``, see `engines.distributed.cluster`.

Every process of the cluster descends from this one and ends with it. The daemon ends when its last client has been gone for as
long as that client wished, when told to, by SIGTERM, and when Ray ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import EngineDiedError
from engines.distributed import runtime
from engines.distributed.ray_node import RayNode, free_port, start_node
from engines.distributed.runtime import LocalSpec
from engines.host import slots
from engines.process.guard import adopt_orphans, end_descendants
from engines.session.cpu_platform import ASKED_BY

UNCLAIMED_SECONDS = 30.0  # for the client that started this process to say so
OBJECT_STORE_BYTES = 1 << 30  # requests and responses, and vLLM's channels between pipeline stages


class ClusterDaemon:
    """One cluster and its clients."""

    def __init__(self, spec: LocalSpec, temporary: Path) -> None:
        self._spec = spec
        self._temporary = temporary
        self._over = asyncio.Event()
        self._clients: dict[asyncio.StreamWriter, float] = {}
        self._models: set[str] = set()
        self._told_by_the_end: list[asyncio.StreamWriter] = []
        self._ending: asyncio.TimerHandle | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Keep the cluster as long as it is wanted. All of it is gone on return, but for the connections of those who wait."""
        loop = asyncio.get_running_loop()
        self._facts: asyncio.Future[dict[str, Any]] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._over.set)
        await asyncio.start_unix_server(self._client, sock=listener)
        self._end_in(UNCLAIMED_SECONDS)
        work = asyncio.create_task(self._keep())
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        work.cancel()
        await asyncio.wait({work})
        await asyncio.to_thread(end_descendants)
        if not work.cancelled():
            work.result()

    async def _keep(self) -> None:
        try:
            slots.keep(self._spec.device, self._spec.names, f"Ray cluster {self._spec.key}", os.environ)
            port, *ray = await self._start_nodes()
        except (EngineDiedError, OSError, RuntimeError) as error:
            self._facts.set_result({"error": f"local Ray cluster {self._spec.key} did not start: {error}"})
            return
        self._facts.set_result({"address": f"127.0.0.1:{port}", "devices": self._spec.names})
        await asyncio.wait(
            [asyncio.create_task(node.process.wait()) for node in ray], return_when=asyncio.FIRST_COMPLETED
        )

    async def _start_nodes(self) -> tuple[Any, ...]:
        first, *others = self._spec.nodes
        port = free_port()
        head = [
            *("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self._temporary / 'ray'}"),
            f"--object-store-memory={OBJECT_STORE_BYTES}",
        ]
        nodes = [await self._start_node("head", head, first)]
        for number, devices in enumerate(others, 1):
            nodes.append(await self._start_node(f"node{number}", [f"--address=127.0.0.1:{port}"], devices))
        return port, *nodes

    async def _start_node(self, name: str, arguments: list[str], devices: Sequence[str]) -> RayNode:
        here = ["--node-ip-address=127.0.0.1", f"--ray-client-server-port={free_port()}", f"--num-gpus={len(devices)}"]
        environment = {"VLLM_RPC_BASE_PATH": str(self._temporary)}  # of its sockets, which it never removes
        environment |= self._spec.environment
        environment |= {ASKED_BY: "1"} if self._spec.device == "cpu" else {"CUDA_VISIBLE_DEVICES": ",".join(devices)}
        return await start_node([*here, *arguments], self._temporary / f"{name}.log", environment)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting = asyncio.create_task(self._greet(writer))
        try:
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):  # the end of this process, or of theirs
                async for line in reader:
                    self._hear(json.loads(line), writer)
        finally:
            greeting.cancel()
            idle_seconds = self._clients.pop(writer, None)
            if idle_seconds is not None and not self._clients:
                self._end_in(idle_seconds)
            if self._over.is_set():
                self._told_by_the_end.append(writer)
            else:
                writer.close()

    def _hear(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        match message:
            case {"idle_seconds": float() | int() as idle_seconds}:
                self._clients[writer] = idle_seconds
                self._models |= {message["model"]} if "model" in message else set()
                self._stay()
            case {"stop": "now"}:
                self._over.set()
            case {"stop": "unused"} if not self._clients:
                self._over.set()

    async def _greet(self, writer: asyncio.StreamWriter) -> None:
        facts = await asyncio.shield(self._facts)
        greeting = {**facts, "clients": len(self._clients), "models": sorted(self._models)}
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(greeting).encode() + b"\n")
            await writer.drain()

    def _end_in(self, seconds: float) -> None:
        self._stay()
        if seconds <= 0:
            self._over.set()
        else:
            self._ending = asyncio.get_running_loop().call_later(seconds, self._over.set)

    def _stay(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None


def main() -> None:
    """Keep the cluster that the arguments describe."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(listener.fileno(), False)
    described = json.loads(sys.argv[2])
    spec = LocalSpec(described["device"], tuple(tuple(node) for node in described["nodes"]))
    adopt_orphans()
    # Ray's own sockets lie below it, and their paths are long already. Ray opens its own folder in it to everybody.
    temporary = Path(tempfile.mkdtemp(prefix="sy-ray-", dir="/tmp"))
    path = runtime.socket_path(spec.key)
    try:
        asyncio.run(ClusterDaemon(spec, temporary).serve(listener))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
