"""An engine whose answers a test writes down: for what stands on the `Engine` protocol and needs no model."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

from core.errors import EngineDiedError
from core.request import Generated, Request, Response
from engines.control import Stop
from engines.engine import EngineInfo

PIDS = itertools.count(10_000_000)  # beyond those of real processes


class ScriptedEngine:
    """Answers each request with ``answers(request)``; an exception it raises comes out of ``run``.

    ``seen`` holds the ids of all requests answered, in order, and ``opened`` and ``closed`` count the calls. ``stats`` names a
    process of its own that lives from ``open`` to ``close``.
    """

    def __init__(self, answers: Callable[[Request], Response], *, max_model_len: int = 2048) -> None:
        self._answers = answers
        self._max_model_len = max_model_len
        self._running = False
        self._stats: dict[str, float] = {}
        self.seen: list[str] = []
        self.opened = 0
        self.closed = 0

    def open(self) -> EngineInfo:
        self.opened += 1
        self._running = True
        self._stats = {"pid": next(PIDS), "started": time.time(), "prompt_tokens": 0, "generation_tokens": 0}
        return EngineInfo("scripted", "0", self._max_model_len, "float32", load_seconds=0.0)

    def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
        for request in requests:
            if stop and stop.is_set:
                return
            if not self._running:
                raise EngineDiedError("the engine is not open")
            self.seen.append(request.id)
            response = self._answers(request)
            self._stats["prompt_tokens"] += response.prompt_tokens
            if isinstance(response, Generated):
                self._stats["generation_tokens"] += response.completion_tokens
            yield response

    def stats(self) -> dict[str, float]:
        return dict(self._stats)

    def close(self, *, keep: bool = True) -> None:
        self.closed += 1
        if self._running:
            self._stats["ended"] = time.time()
        self._running = False
