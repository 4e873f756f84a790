"""The spec's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import UserError
from core.yaml_file import read_yaml


def read_spec_file(path: Path) -> dict[str, Any]:
    """Read the fields of a spec. Raises `core.errors.UserError` with the line where it is no YAML mapping."""
    data = read_yaml(path, "spec")
    if not isinstance(data, dict):
        raise UserError(f"spec {str(path)!r} is not a mapping of fields: it needs at least name, models and benchmarks")
    return data
