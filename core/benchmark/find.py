"""Finding benchmarks: bundled ones, lm-evaluation-harness's catalogue, and task YAMLs by path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from core.catalogue.index import Entry, Leaf, MemberError, harness_index, leaves, read_index
from core.catalogue.task_functions import function_fault, functions_in
from core.catalogue.task_yaml import check_entry, check_yaml
from core.errors import UserError, nearest
from core.spec.suite import is_path, suites

BUNDLED = Path(__file__).parents[1] / "benchmarks"


def bundled() -> dict[str, Path]:
    """Return name → YAML of the benchmarks that come with Steelyard; they need no hub, and win over the catalogue's of one name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.yaml"))}


@cache
def entries() -> Mapping[str, Entry]:
    """Return everything a campaign can name: lm-eval's tasks, groups and tags, and the bundled benchmarks."""
    return harness_index().entries | _bundled_entries()


def names() -> Iterable[str]:
    """Every name of the catalogue and every bundled one."""
    return entries()


def find(name: str) -> dict[str, Any]:
    """Return the parsed YAML of a benchmark, functions unresolved; empty for a tag.

    Loads no dataset and runs no code of the benchmark. Raises `core.errors.UserError` with the nearest name, or with file, line,
    field and fix.
    """
    if is_path(name):
        return _checked(Path(name))
    entry = _named(name)
    if entry.path is not None:
        check_entry(entry)
    if entry.kind in ("group", "tag"):
        _check_members(name)
    return dict(entry.config or {})


def leaves_of(name: str) -> list[Leaf]:
    """Return the tasks that a benchmark stands for, what its groups override applied. Raises `core.errors.UserError`."""
    root, scope = scope_of(name)
    try:
        return leaves(scope, root)
    except MemberError as error:
        meant = nearest(error.member, scope) if error.member else ""
        raise UserError(f"benchmark {name!r}: {error}{meant}") from error


@cache
def _bundled_entries() -> dict[str, Entry]:
    return read_index(BUNDLED).entries


def _named(name: str) -> Entry:
    entry = _bundled_entries().get(name) or harness_index().entries.get(name)
    if entry is None:
        if name in suites():
            raise UserError(
                f"benchmark {name!r} is a suite: name it in a campaign's benchmarks, or one of its members here"
            )
        raise UserError(f"benchmark {name!r} is not known{nearest(name, [*entries(), *suites()])}")
    return entry


def scope_of(name: str) -> tuple[str, Mapping[str, Entry]]:
    """Return a benchmark's own name and the entries that its members are looked up in."""
    if not is_path(name):
        _named(name)
        return name, _bundled_entries() if name in _bundled_entries() else entries()
    path = Path(name)
    config = check_yaml(path)
    if "group" not in config or "class" in config:
        own = Entry(config["task"], "python" if "class" in config else "task", path, config)
        return own.name, {own.name: own}
    return config["group"], _beside(path, config)


def _checked(path: Path) -> dict[str, Any]:
    """Check a YAML by path and, of a group, every member that lies beside it."""
    config = check_yaml(path)
    if "group" in config and "class" not in config:
        scope = _beside(path, config)
        check_yaml(path, scope)
        found = leaves_of(str(path))
        inner = {each.path for leaf in found for name in leaf.groups if (each := scope.get(name)) and each.path != path}
        for group in sorted(each for each in inner if each is not None and each.is_relative_to(path.parent)):
            check_yaml(group, scope)
        for leaf in found:
            if leaf.path is not None and leaf.path.is_relative_to(path.parent):
                check_yaml(leaf.path, config=leaf.config)
    return config


def _check_members(name: str) -> None:
    """Check the tasks of a group or a tag of the catalogue, as the group's overrides leave them."""
    for leaf in leaves_of(name):
        if leaf.path is not None:
            check_entry(leaf)
            continue
        for _, function in functions_in(dict(leaf.config)):
            if reason := function_fault(function):
                raise UserError(f"benchmark {name!r}: {str(function.folder)!r}: !function {function.written}: {reason}")


def _beside(path: Path, config: Mapping[str, Any]) -> dict[str, Entry]:
    """Entries for a group's YAML: those of its folder, and the catalogue's where they do not hold every member."""
    folder = read_index(path.parent).entries | {config["group"]: Entry(config["group"], "group", path, config)}
    try:
        leaves(folder, config["group"])
    except MemberError:
        return {**entries(), **folder}
    return folder


def cluster_field(benchmark: str) -> str | None:
    """Return the doc field that groups a benchmark's docs, None where its YAML names none.

    Raises `core.errors.UserError` where it is no name, and as `find` does.
    """
    metadata = find(benchmark).get("metadata")
    field = metadata.get("cluster") if isinstance(metadata, dict) else None
    if field is not None and (not isinstance(field, str) or not field):
        raise UserError(f"benchmark {benchmark!r}: metadata.cluster = {field!r}: name one field of its docs")
    return field
