"""An engine process that answers at once and needs no model: ``python -m tests.engines.scripted_process FD``."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Sequence
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from core.request import Generated, Request, Response
from engines.process.server import run_server

hoard: list[Any] = []


class Session:
    """Takes ``seconds`` for each request, one after the other."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.facts: dict[str, Any] = {"vllm_version": "0", "max_model_len": 2048, "dtype": "float32"}

    async def run(self, requests: Sequence[Request]) -> AsyncGenerator[Response, None]:
        for request in requests:
            await asyncio.sleep(self._seconds)
            yield Generated(request.id, request.id, "stop", prompt_tokens=1, completion_tokens=1)

    def stats(self) -> dict[str, float]:
        return {}

    async def close(self, *, keep: bool) -> None:
        return None


async def open_session(seconds: float) -> Session:
    """Serve at once; with a negative number of seconds, first take what vLLM takes of the machine, and tell where it is."""
    session = Session(abs(seconds))
    if seconds < 0:
        hoard.append(SharedMemory(create=True, size=64))
        hoard.append(tempfile.NamedTemporaryFile())  # noqa: SIM115 - it is meant to stay
        session.facts["detail"] = {"shared": hoard[0].name, "file": hoard[1].name}
    return session


def wait() -> None:
    """Tell the log that this process is ready for what is to be opened."""
    print("waits", flush=True)


if __name__ == "__main__":
    run_server(open_session, end_seconds=0, blocks_while_opening=False, prepare=wait)
