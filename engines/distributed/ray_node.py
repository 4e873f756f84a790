"""One Ray node as a child process: ``ray start`` behind `engines.process.guard`, so that it ends with its starter."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.errors import UserError
from core.model.checkpoint import Checkpoint
from core.model.weights import fetch_checkpoint, has_weights
from engines.engine import FETCHING, EngineConfig
from engines.process.child import quote_log

START_SECONDS = 120.0
STARTED = "Ray runtime started"


@dataclass(frozen=True)
class RayNode:
    """A started node."""

    process: asyncio.subprocess.Process
    draining: asyncio.Task[None]

    async def end(self) -> None:
        """End the node; all of it is gone on return."""
        cast(asyncio.StreamWriter, self.process.stdin).close()
        await self.process.wait()
        await self.draining


async def start_node(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> RayNode:
    """Run ``ray start`` with ``arguments`` until it says that it is up; what it prints goes to ``log``.

    Raises `RuntimeError` with the end of the log where it exits or takes too long; nothing of it stays then.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *arguments]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engines.process.guard", *command),
        stdin=asyncio.subprocess.PIPE,  # held open: the guard ends with us
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ray ends its own process group
        env={**os.environ, **environment},
    )
    output = cast(asyncio.StreamReader, process.stdout)
    try:
        async with asyncio.timeout(START_SECONDS):
            started = await _copy_until(STARTED, output, log)
    except TimeoutError:
        cast(asyncio.StreamWriter, process.stdin).close()
        await process.wait()
        raise RuntimeError(f"ray start is not up after {START_SECONDS:g} s{quote_log(log)}") from None
    if not started:
        await process.wait()
        raise RuntimeError(f"ray start exited with status {process.returncode}{quote_log(log)}")
    return RayNode(process, asyncio.create_task(_drain(output)))  # read on: the pipe must not fill up


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def _copy_until(word: str, stream: asyncio.StreamReader, log: Path) -> bool:
    """Copy lines to ``log`` up to the one with ``word``; False where the stream ends first."""
    with log.open("wb") as file:
        async for line in stream:
            file.write(line)
            file.flush()
            if word.encode() in line:
                return True
    return False


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass


def on_every_node(config: EngineConfig) -> EngineConfig:
    """Return ``config`` as all nodes with GPUs can load it, whatever of it they have.

    vLLM fetches from the hub by itself. From S3 each node gets all but the weights, and where these are not streamed vLLM's workers
    get them (`engines.session.worker`): only they know which nodes the model is on.

    Raises `core.errors.UserError` for a directory that is not on all nodes, and where nodes would keep what they fetch in
    different places.
    """
    checkpoint = config.checkpoint
    if checkpoint is None:
        return config
    if checkpoint.place != "s3":
        lacking = [
            host
            for host, found in _ask_nodes(has_weights, config.model, checkpoint.weight_files, config.extra)
            if not found
        ]
        if lacking and checkpoint.place == "directory":
            raise UserError(
                f"{config.model!r} is not whole on {lacking[0]}, a node of the Ray cluster: put it there, or name a checkpoint "
                "on the hub or on S3, which nodes fetch themselves"
            )
        return replace(config, model=checkpoint.source, revision=checkpoint.revision) if lacking else config
    places = {place for _, place in _ask_nodes(fetch_rest, checkpoint)}
    if len(places) > 1:
        raise UserError(
            f"{checkpoint.source!r} would be in different places on the nodes of the Ray cluster "
            f"({', '.join(sorted(places))}): set STEELYARD_CACHE to the same on all of them"
        )
    placed = replace(config, model=places.pop())
    if config.stream:
        return placed
    inner = {name: config.extra[name] for name in ("load_format", "model_loader_extra_config") if name in config.extra}
    fetching = {"checkpoint": asdict(checkpoint), "inner": inner}
    return replace(placed, extra={**config.extra, "load_format": FETCHING, "model_loader_extra_config": fetching})


def fetch_rest(checkpoint: Checkpoint) -> str:
    """Fetch all of a checkpoint but its weights to this node. Returns the directory."""
    return str(fetch_checkpoint(checkpoint, weights=False))


def _ask_nodes(function: Callable[..., Any], *arguments: Any) -> list[tuple[str, Any]]:
    """Return (host, what ``function`` says there) of the nodes with GPUs and of this one."""
    here = ray.get_runtime_context().get_node_id()
    chosen = [
        node for node in ray.nodes() if node["Alive"] and (node["Resources"].get("GPU") or node["NodeID"] == here)
    ]
    asked = ray.remote(num_cpus=0)(function)
    answers = [
        asked.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(*arguments)
        for node in chosen
    ]
    try:
        found = ray.get(answers)
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, UserError) else error from None
    return [(str(node["NodeManagerHostname"]), answer) for node, answer in zip(chosen, found, strict=True)]
