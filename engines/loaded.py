"""An engine that was opened before it is handed on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from core.request import Request, Response
from engines.engine import Engine, EngineInfo
from engines.stop import Stop


class Loaded:
    """An `engines.engine.Engine` whose ``open`` says what came up when ``engine`` was opened."""

    def __init__(self, engine: Engine, info: EngineInfo) -> None:
        self._engine, self._info = engine, info

    def open(self) -> EngineInfo:
        """Say what came up."""
        return self._info

    def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
        """See `engines.engine.Engine.run`."""
        return self._engine.run(requests, stop)

    def stats(self) -> dict[str, float]:
        """See `engines.engine.Engine.stats`."""
        return self._engine.stats()

    def close(self, *, keep: bool = True) -> None:
        """See `engines.engine.Engine.close`."""
        self._engine.close(keep=keep)
