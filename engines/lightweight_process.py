"""The lightweight engine's own process: ``python -m engines.lightweight_process FD``; see `engines.process_server`."""

from __future__ import annotations

from engines.devices import keep_to
from engines.engine import EngineConfig
from engines.process_server import EngineSession, run_server

END_SECONDS = 15.0  # what an orderly end may take


async def open_session(config: EngineConfig) -> EngineSession:
    """Load vLLM in this process."""
    keep_to(config.cores)
    from engines.vllm_io import Session

    return await Session.open(config)


if __name__ == "__main__":
    run_server(open_session, end_seconds=END_SECONDS, blocks_while_opening=True)
