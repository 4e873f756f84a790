"""The reader of YAML and JSON files: plain values, the line of every field, and no field that stands twice in a person's file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError

Keys = tuple[str | int, ...]
MERGE = "tag:yaml.org,2002:merge"  # of the key <<


class FunctionName(str):
    """The value of a ``!function`` in a YAML, not imported: ``<folder of the YAML>/module.function``, as lm-eval spells it.

    ``written`` is the part that the YAML says.
    """

    written: str
    folder: Path

    def __new__(cls, written: str, folder: Path) -> FunctionName:
        """Keep both parts beside the text."""
        name = super().__new__(cls, folder / written)
        name.written, name.folder = written, folder
        return name


class YamlFault(ValueError):
    """A file that cannot be read: the reason on one line, with its line where known; ``sentence`` follows the file's name."""

    def __init__(self, reason: str, sentence: str = "") -> None:
        super().__init__(reason)
        self.sentence = sentence or f"is not YAML: {reason}"


class _Strict(yaml.SafeLoader):
    """Refuses a field that stands twice in one mapping, of which YAML would keep the last.

    Not libyaml's loader, in which a deeply nested file ends the process.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            if (key.tag, key.value) in lines:
                problem = (
                    f"the field {key.value!r} stands twice, first on line {lines[key.tag, key.value]}; leave one out"
                )
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[key.tag, key.value] = key.start_mark.line + 1
        return node


class _StrictTask(_Strict):
    """Reads ``!function`` too."""


class _Lenient(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads a task's file as lm-eval does: of a field that stands twice the last wins. A tenth of the time of the others."""


def _function(loader: Any, node: Any) -> FunctionName:
    return FunctionName(loader.construct_scalar(node), loader.folder)


_StrictTask.add_constructor("!function", _function)
_Lenient.add_constructor("!function", _function)


def read_yaml(path: Path, what: str) -> Any:
    """Read a file, which messages call ``what``. Raises `core.errors.UserError` with the line where it is no YAML."""
    try:
        return _read(path, _Strict)[0]
    except YamlFault as fault:
        raise UserError(f"{what} {str(path)!r} {fault.sentence}") from fault


def read_task_yaml(path: Path, *, lenient: bool) -> tuple[Any, dict[Keys, int]]:
    """Read a task's file, ``!function`` as `FunctionName`; returns its value, and the line of each field, entry and nested field.

    ``lenient`` is for files that nobody here can mend. Raises `YamlFault`.
    """
    value, node = _read(path, _Lenient if lenient else _StrictTask)
    return value, dict(_lines(node, ()))


def read_task_value(path: Path) -> Any:
    """Read the value of a task's file as lm-eval does, fast. Raises `YamlFault`."""
    return _read(path, _Lenient)[0]


def _read(path: Path, kind: Any) -> tuple[Any, Any]:
    try:
        loader = kind(path.read_text(encoding="utf-8"))
        loader.folder = path.parent
        try:
            node = loader.get_single_node()
            return loader.construct_document(node) if node is not None else None, node
        finally:
            loader.dispose()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise YamlFault(f"cannot read {path}: {reason}", f"cannot be read: {reason}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = f"{where}{error.problem or 'not YAML'}"
        raise YamlFault(reason, f"is not YAML at {reason}" if mark else "") from error
    except RecursionError as error:
        raise YamlFault("it is nested too deeply") from error
    except (ValueError, LookupError, AttributeError) as error:  # of a date, a number or a tag's value that there is not
        raise YamlFault(f"{' '.join(str(error).split())}: put the value in quotes") from error
    except yaml.YAMLError as error:
        raise YamlFault(next(iter(str(error).splitlines()), "not YAML")) from error


def _lines(node: Any, keys: Keys, above: tuple[Any, ...] = ()) -> Iterator[tuple[Keys, int]]:
    if node in above:
        raise YamlFault(f"line {node.start_mark.line + 1}: what its anchor marks holds itself")
    inside = (*above, node)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*keys, key.value)
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner, inside)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            inner = (*keys, position)
            yield inner, value.start_mark.line + 1
            yield from _lines(value, inner, inside)
