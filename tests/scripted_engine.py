"""An engine whose answers a test writes down: for what stands on the `Engine` protocol and needs no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from core.errors import EngineDiedError
from core.request import Request, Response
from engines.engine import EngineInfo


class ScriptedEngine:
    """Answers each request with ``answers(request)``; an exception it raises comes out of ``run``.

    ``seen`` holds the ids of all requests answered, in order, and ``opened`` and ``closed`` count the calls.
    """

    def __init__(self, answers: Callable[[Request], Response], *, max_model_len: int = 2048) -> None:
        self._answers = answers
        self._max_model_len = max_model_len
        self._running = False
        self.seen: list[str] = []
        self.opened = 0
        self.closed = 0

    def open(self) -> EngineInfo:
        self.opened += 1
        self._running = True
        return EngineInfo("scripted", "0", self._max_model_len, "float32", load_seconds=0.0)

    def run(self, requests: Sequence[Request]) -> Iterator[Response]:
        for request in requests:
            if not self._running:
                raise EngineDiedError("the engine is not open")
            self.seen.append(request.id)
            yield self._answers(request)

    def close(self, *, keep: bool = True) -> None:
        self.closed += 1
        self._running = False
