"""Telling how far each benchmark is: to listeners in this process, and to Prefect as progress artifacts."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

from core.monitor.progress import Progress
from tasks.keys import artifact_key

ARTIFACT_SECONDS = 5.0

Listener = Callable[[Progress], None]

_listeners: list[Listener] = []
_lock = threading.Lock()
log = logging.getLogger("steelyard")


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have ``listener`` hear of all progress in this process. It is called from several threads and must not block."""
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)


def tell(progress: Progress) -> None:
    """Tell every listener."""
    with _lock:
        listeners = list(_listeners)
    for listener in listeners:
        listener(progress)


async def show_while(working: asyncio.Future[Any], latest: Callable[[], Progress | None], label: str) -> None:
    """Keep a Prefect progress artifact up to date until ``working`` is done. The display is no reason to fail."""
    artifact, shown = None, None
    while True:
        done, _ = await asyncio.wait([working], timeout=ARTIFACT_SECONDS)
        progress = latest()
        if progress is not None and progress != shown:
            shown, text = progress, str(progress)
            try:
                if artifact is None:
                    artifact = await acreate_progress_artifact(
                        progress.share * 100, key=artifact_key("progress", label), description=text
                    )
                else:
                    await aupdate_progress_artifact(artifact, progress.share * 100, description=text)
            except Exception as error:  # whatever Prefect's client raises
                log.debug("progress of %s is not shown: %s", label, error)
        if done:
            return
