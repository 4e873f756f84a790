"""One Ray node as a child process: ``ray start`` behind `engines.process.guard`, so that it ends with whoever started it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from engines.process.log import quote_log

START_SECONDS = 120.0
STARTED = "Ray runtime started"


class RayNode:
    """A started node."""

    def __init__(self, process: asyncio.subprocess.Process, draining: asyncio.Task[None]) -> None:
        self._process, self._draining = process, draining

    async def wait(self) -> None:
        """Wait for its end."""
        await self._process.wait()

    async def end(self) -> None:
        """End it; all of it is gone on return."""
        cast(asyncio.StreamWriter, self._process.stdin).close()
        await self._process.wait()
        await self._draining


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
    return RayNode(process, asyncio.create_task(_drain(output)))


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
    """Read on, so that the writer never blocks on a full pipe."""
    while await stream.read(1 << 16):
        pass
