"""The log that a person reads while a campaign runs: shown by the command line, and kept by Prefect with each run."""

from __future__ import annotations

import logging

from core.redact import redact_logs

log = logging.getLogger("steelyard")
if log.level == logging.NOTSET:  # a worker's flow process has no command line that sets it
    log.setLevel(logging.INFO)
redact_logs()
_said: set[str] = set()


def warn_once(text: str) -> None:
    """Log a warning, unless this process has: several models are asked the same benchmark."""
    if text not in _said:
        _said.add(text)
        log.warning(text)
