"""An engine process that answers at once and needs no model: ``python -m tests.engines.scripted_process FD``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from core.request import Generated, Request, Response
from engines.process_server import run_server


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
    return Session(seconds)


if __name__ == "__main__":
    run_server(open_session, end_seconds=5.0, blocks_while_opening=False)
