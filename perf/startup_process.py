"""The lightweight engine's own process with a clock: as `engines.process.lightweight_process`, and says what each phase took."""

from __future__ import annotations

import time
from typing import Any

from engines.engine import EngineConfig
from engines.process import lightweight_process
from engines.process.server import EngineSession, run_server


class Timed:
    """A session that tells ``phases`` among its facts."""

    def __init__(self, session: EngineSession, phases: dict[str, float]) -> None:
        self._session, self._phases = session, phases
        self.run, self.stats, self.close = session.run, session.stats, session.close

    @property
    def facts(self) -> dict[str, Any]:
        """See `engines.process.server.EngineSession`."""
        return {**self._session.facts, "detail": {"phases": self._phases}}


phases: dict[str, float] = {}


def import_vllm() -> None:
    """See `engines.process.lightweight_process`."""
    begun = time.monotonic()
    lightweight_process.import_vllm()
    phases["import"] = time.monotonic() - begun


async def open_session(config: EngineConfig) -> EngineSession:
    """See `engines.process.lightweight_process`."""
    begun = time.monotonic()
    session = await lightweight_process.open_session(config)
    return Timed(session, {**phases, "engine": time.monotonic() - begun})


if __name__ == "__main__":
    run_server(open_session, end_seconds=0, blocks_while_opening=True, prepare=import_vllm)
