"""Prefect's events and logs on their way from this process."""

from __future__ import annotations

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

SECONDS = 30.0


def drain() -> None:
    """Have them reach their server, which must still live: each that is left would be tried again for seconds when pytest ends."""
    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=SECONDS, at_exit=False)
