"""Tasks of a test's own: a YAML with its rows and functions in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

GENERATE: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_text": "{{q}} Answer:",
    "doc_to_target": "yes",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
CHOOSE: dict[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}} Answer:",
    "doc_to_choice": ["yes", "no"],
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
CSV = "q,gold\nIs 1 odd?,0\nIs 2 odd?,1\nIs 3 odd?,\n"


class Function(str):
    """The name of a function beside the YAML, ``mine.results``."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def write_task(
    folder: Path,
    name: str,
    fields: Mapping[str, Any],
    rows: str | Sequence[Mapping[str, Any]] = CSV,
    functions: str = "",
    **changes: Any,
) -> str:
    """Write a task, its ``rows`` as CSV or objects, and what ``mine.py`` holds. Returns the YAML's path."""
    kind, text = ("csv", rows) if isinstance(rows, str) else ("json", "\n".join(map(json.dumps, rows)))
    data = folder / f"{name}.{kind}"
    data.write_text(text)
    (folder / "mine.py").write_text(functions)
    whole = {
        "task": name,
        "dataset_path": kind,
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        **fields,
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.dump(whole, Dumper=_Dumper))
    return str(path)
