"""A campaign over scripted engine processes, to be killed: ``python -m tests.flows.killed_campaign SPEC.json SECONDS``.

Each answer takes so many seconds.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import engines.bench.bench
import engines.process.lightweight
from engines.engine import Engine
from engines.process.engine import ProcessEngine, child_environment
from flows.campaign import campaign

SECONDS = float(sys.argv[2])


def build(spec: Any, planned: Any, config: Any, held: Any, cluster: Any) -> Engine:
    """Return a scripted engine in a process of its own."""
    return ProcessEngine(
        "scripted",
        "tests.engines.scripted_process",
        SECONDS,
        model=planned.model.name,
        environment=child_environment(os.environ),
        close_seconds=0,
        orderly_while_loading=False,
        slots=held.descriptors,
    )


if __name__ == "__main__":
    engines.process.lightweight.prewarmed = lambda device: None  # type: ignore[assignment, return-value]
    engines.bench.bench.build_engine = build
    campaign(json.loads(Path(sys.argv[1]).read_text()))
