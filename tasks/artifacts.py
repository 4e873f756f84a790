"""What people see of a model in Prefect while it runs: progress, and faults of its engine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from prefect.artifacts import acreate_progress_artifact, acreate_table_artifact, aupdate_progress_artifact

from core.monitor.progress import Progress
from core.tables import markdown_text
from engines.bench.job import Recovery
from tasks.steps import step

ARTIFACT_SECONDS = 5.0
log = logging.getLogger("steelyard")


def artifact_key(kind: str, name: str) -> str:
    """Return ``<kind>-<name>`` in the lower-case letters, digits and dashes that Prefect takes."""
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in name.lower()).split()
    return "-".join([kind, *words])


@step("show faults", "of {recovery.planned.model.name}")
async def show_faults(recovery: Recovery) -> None:
    """Show a model's faults and what was done about them in Prefect."""
    model = recovery.planned.model.name
    rows = [{**row, "time": time.strftime("%H:%M:%S", time.gmtime(row["time"]))} for row in recovery.record()]
    await acreate_table_artifact(
        key=artifact_key("faults", model),
        table=rows,
        description=f"How the engine of {markdown_text(model)} failed {len(rows)} times, and what was done",
    )


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
