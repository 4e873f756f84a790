"""The lightweight engine's own process: ``python -m engines.process.lightweight_process FD``; see `engines.process.server`."""

from __future__ import annotations

import importlib
import os

from engines.engine import EngineConfig
from engines.host.slots import device_environment, keep_to
from engines.process.server import EngineSession, run_server


def import_vllm() -> None:
    """Import all that a session needs. No device is touched, so it may be done before there is one."""
    importlib.import_module("engines.session.session")


async def open_session(config: EngineConfig) -> EngineSession:
    """Load vLLM in this process."""
    keep_to(config.cores)
    os.environ.update(device_environment(config, os.environ))
    from engines.session.session import Session

    return await Session.open(config)


if __name__ == "__main__":
    run_server(open_session, end_seconds=0, blocks_while_opening=True, prepare=import_vllm)
