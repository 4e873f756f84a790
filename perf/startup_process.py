"""The lightweight engine's own process with a clock: as `engines.lightweight_process`, and says what each phase took."""

from __future__ import annotations

import time
from typing import Any

from engines.engine import EngineConfig
from engines.lightweight_process import END_SECONDS
from engines.process_server import EngineSession, run_server


class Timed:
    """A session that tells ``phases`` among its facts."""

    def __init__(self, session: EngineSession, phases: dict[str, float]) -> None:
        self._session, self._phases = session, phases
        self.run, self.stats, self.close = session.run, session.stats, session.close

    @property
    def facts(self) -> dict[str, Any]:
        """See `engines.process_server.EngineSession`."""
        return {**self._session.facts, "detail": {"phases": self._phases}}


async def open_session(config: EngineConfig) -> EngineSession:
    """Load vLLM in this process."""
    begun = time.monotonic()
    from engines.vllm_io import Session

    imported = time.monotonic()
    session = await Session.open(config)
    return Timed(session, {"import": imported - begun, "engine": time.monotonic() - imported})


if __name__ == "__main__":
    run_server(open_session, end_seconds=END_SECONDS, blocks_while_opening=True)
