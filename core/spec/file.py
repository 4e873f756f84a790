"""Files that people write, YAML or JSON, read safely."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError


class _Loader(yaml.SafeLoader):
    """Makes plain values only, and refuses a field that stands twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the field {key.value!r} stands twice; leave one out", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_spec_file(path: Path) -> dict[str, Any]:
    """Read the fields of a spec. Raises `core.errors.UserError` with the line where it is no YAML mapping."""
    data = read_yaml(path, "spec")
    if not isinstance(data, dict):
        raise UserError(f"spec {str(path)!r} is not a mapping of fields: it needs at least name, models and benchmarks")
    return data


def read_yaml(path: Path, what: str) -> Any:
    """Read a file, which messages call ``what``. Raises `core.errors.UserError` with the line where it is no YAML."""
    named = f"{what} {str(path)!r}"
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 # a safe one
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{named} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise UserError(f"{named} is not YAML{where}: {problem}") from error
    except RecursionError as error:
        raise UserError(f"{named} is not YAML: it is nested too deeply") from error
    except ValueError as error:  # of a date or a number that there is not
        raise UserError(f"{named}: {' '.join(str(error).split())}: put the value in quotes") from error
