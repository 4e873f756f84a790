"""What a person reads while a campaign runs: one logger, shown by the command line and kept by Prefect's run logs."""

from __future__ import annotations

import logging

from core.redact import redact_logs

logger = logging.getLogger("steelyard")
if logger.level == logging.NOTSET:  # a worker's flow process has no command line that sets it
    logger.setLevel(logging.INFO)
redact_logs()


def say(message: str) -> None:
    """Tell the person who waits."""
    logger.info(message)


def warn(message: str) -> None:
    """Tell the person who waits that something went wrong."""
    logger.warning(message)
