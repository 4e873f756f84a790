"""The lightweight engine's own process: ``python -m engines.lightweight_process FD``; see `engines.process_server`."""

from __future__ import annotations

import importlib
import os

from engines.devices import device_environment, keep_to
from engines.engine import EngineConfig
from engines.process_server import EngineSession, run_server


def import_vllm() -> None:
    """Import all that a session needs. No device is touched, so it may be done before there is one."""
    importlib.import_module("engines.vllm_io")


async def open_session(config: EngineConfig) -> EngineSession:
    """Load vLLM in this process."""
    keep_to(config.cores)
    os.environ.update(device_environment(config, os.environ))
    from engines.vllm_io import Session

    return await Session.open(config)


if __name__ == "__main__":
    run_server(open_session, end_seconds=0, blocks_while_opening=True, prepare=import_vllm)
