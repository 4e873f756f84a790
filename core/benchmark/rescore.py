"""New scores from stored samples: where a metric, a filter or a target changed and no request did, no engine is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.sample import Cell

# Of a task's settings, those that fix what the model is asked; the others only change how its answers are scored.
ASKED = ("prompts", "until")
# Of a benchmark's settings, those that are in each task's requests already, or in no request.
IN_REQUESTS = ("tasks", "groups", "limit", "sampling", "system_prompt", "judge")
# Names for people, in no fingerprint.
NAMES = ("source", "revision", "datasets", "benchmark")


def asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a cell's settings what fixes its responses: the checkpoint, how it runs, and every request."""
    benchmark = settings["benchmark"]
    return {
        **{name: value for name, value in settings.items() if name not in NAMES},
        "benchmark": {name: value for name, value in benchmark.items() if name not in IN_REQUESTS},
        "judge": {name: value for name, value in benchmark.get("judge", {}).items() if name != "verdict"},
        "tasks": {
            name: {key: task[key] for key in ASKED if key in task} for name, task in benchmark.get("tasks", {}).items()
        },
    }


def find_donor(cell: Cell, records: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the newest commit record whose cell was asked exactly what ``cell`` asks, or None."""
    wanted = asked(cell.settings)
    same = [
        record
        for record in records
        if record["fingerprint"] != cell.fingerprint and asked(record["settings"]) == wanted
    ]
    return max(same, key=lambda record: str(record["committed"]), default=None)
