"""A task or group YAML read with the line of every field, so that a fault names file, line, field and fix. Runs no code of it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.catalogue.index import Entry, Leaf, harness_folder
from core.catalogue.task_functions import function_fault, functions_in, registered_by
from core.catalogue.task_rules import Known, faults_of
from core.errors import UserError, nearest
from core.strict import Fault, where_of
from core.yaml_file import Keys, YamlFault, read_task_yaml


@dataclass(frozen=True)
class Place:
    """Where a field stands; the line counts from 1."""

    file: Path
    line: int


@dataclass(frozen=True)
class TaskYaml:
    """A YAML with its includes merged. ``places`` says where each field, entry and nested field stands."""

    path: Path
    config: dict[str, Any]
    places: dict[Keys, Place]


def check_yaml(
    path: Path,
    members: Collection[str] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    misspelt: bool = True,
) -> dict[str, Any]:
    """Read and check one YAML; functions come back as `core.catalogue.index.FunctionName`.

    ``members`` are the names that a group may list, ``config`` the fields as a group's overrides leave them. With ``misspelt`` a
    nested field that lm-eval would pass over in silence is refused where it looks like one it knows. Raises
    `core.errors.UserError` with a line per fault: file, line, field, fix.
    """
    read = _as_overridden(path, config)
    faults = _faults(read.config, members, misspelt)
    if faults:
        raise UserError("\n".join(_lines(read, faults)))
    return read.config


def fault_lines(path: Path, config: Mapping[str, Any], faults: Collection[Fault]) -> list[str]:
    """Return the faults of a YAML's fields, as its groups leave them, with file and line, in the file's order."""
    return _lines(_as_overridden(path, config), faults) if faults else []


def _as_overridden(path: Path, config: Mapping[str, Any] | None) -> TaskYaml:
    read = read_yaml(path)
    if config is None:
        return read
    same = {field for field, value in read.config.items() if field in config and config[field] == value}
    return TaskYaml(path, dict(config), {keys: at for keys, at in read.places.items() if keys[0] in same})


def _lines(read: TaskYaml, faults: Collection[Fault]) -> list[str]:
    places = {fault: _place(read, fault.keys) for fault in faults}
    ordered = sorted(faults, key=lambda fault: place.line if (place := places[fault]) else 0)
    return [_line(read, fault, places[fault]) for fault in ordered]


def check_entry(entry: Entry | Leaf) -> None:
    """Check a task or group that an index has read, as `check_yaml` does; its file is read again only where there is a fault.

    What lm-eval passes over in silence is passed over. Raises `core.errors.UserError` with a line per fault.
    """
    config = entry.config or {}
    if entry.path is not None and _faults(config, None, misspelt=False):
        check_yaml(entry.path, config=config, misspelt=False)


def _faults(config: Mapping[str, Any], members: Collection[str] | None, misspelt: bool) -> list[Fault]:
    functions = list(functions_in(dict(config)))
    registered = {name for _, function in functions for name in registered_by(function)}
    faults = faults_of(config, Known(members, frozenset(registered), misspelt))
    reasons: set[str] = set()
    for keys, function in functions:
        reason = function_fault(function)
        if reason and reason not in reasons:  # one module's fault is that of all its functions
            reasons.add(reason)
            faults.append(Fault(keys, f"{where_of(keys)} = !function {function.written}: {reason}"))
    return faults


def read_yaml(path: Path) -> TaskYaml:
    """Read a YAML and what it includes. Raises `core.errors.UserError` with file and line where that cannot be done."""
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise UserError(f"benchmark {str(path)!r}: no such file{nearest(path.name, siblings)}")
    return _read(path, ())


def _read(path: Path, above: tuple[Path, ...]) -> TaskYaml:
    shipped = path.resolve().is_relative_to(harness_folder().resolve())
    try:
        config, lines = read_task_yaml(path, lenient=shipped)
    except YamlFault as fault:
        raise UserError(f"benchmark {str(path)!r}: {fault}") from fault
    if not isinstance(config, dict):
        kind = "empty" if config is None else f"a {type(config).__name__}"
        raise UserError(
            f"benchmark {str(path)!r}: {kind}, not a mapping of fields; it needs at least 'task' and 'dataset_path'"
        )
    places = {keys: Place(path, line) for keys, line in lines.items()}
    merged: dict[str, Any] = {}
    placed: dict[Keys, Place] = {}
    for other in _included(path, config.pop("include", None), places, above):
        merged, placed = _merge(merged, placed, other.config, other.places)
    return TaskYaml(path, *_merge(merged, placed, config, places))


def _included(path: Path, listed: Any, places: Mapping[Keys, Place], above: tuple[Path, ...]) -> Iterator[TaskYaml]:
    for each in listed if isinstance(listed, list) else [listed] if listed is not None else []:
        where = f"benchmark {str(path)!r}: line {places['include',].line}: include = {each!r}"
        if not isinstance(each, str):
            raise UserError(f"{where}: use the path of a YAML, relative to this one")
        other = Path(os.path.normpath(path.parent / each))
        if not other.is_file():
            siblings = [entry.name for entry in other.parent.glob("*")] if other.parent.is_dir() else []
            raise UserError(
                f"{where}: cannot read {str(other)!r}, there is no such file{nearest(other.name, siblings)}"
            )
        if other.resolve() in (path.resolve(), *above):
            raise UserError(f"{where}: the files include each other; drop one include")
        yield _read(other, (*above, path.resolve()))


def _merge(
    below: dict[str, Any], below_places: dict[Keys, Place], above: dict[str, Any], above_places: dict[Keys, Place]
) -> tuple[dict[str, Any], dict[Keys, Place]]:
    """Merge as lm-eval does: whole top-level fields, the later wins."""
    kept = {keys: place for keys, place in below_places.items() if keys[0] not in above}
    return below | above, kept | above_places


def _place(read: TaskYaml, keys: Keys) -> Place | None:
    return next((read.places[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in read.places), None)


def _line(read: TaskYaml, fault: Fault, place: Place | None) -> str:
    if place is None:
        return f"benchmark {str(read.path)!r}: {fault.message}"
    via = "" if place.file == read.path else f" (included by {read.path.name})"
    return f"benchmark {str(place.file)!r}: line {place.line}: {fault.message}{via}"
