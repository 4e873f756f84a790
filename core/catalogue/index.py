"""Index of task YAMLs: the names that a folder of lm-evaluation-harness's format gives, without running code or loading datasets.

The same names, kinds and precedence as ``lm_eval.tasks.TaskManager`` (0.4.13), in a fifth of its time; files that cannot be read
are kept with their fault instead of being skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from core.errors import UserError
from core.yaml_file import YamlFault, read_task_value

Kind = Literal["task", "python", "group", "tag"]

IGNORED = ("__pycache__", ".ipynb_checkpoints", ".git", ".venv", "node_modules")
# Fields of a group's own; every other one overrides its members'.
GROUP_FIELDS = ("group", "group_alias", "task", "aggregate_metric_list", "metadata")


class MemberError(UserError):
    """A group cannot be resolved; ``member`` is the name at fault, where there is one."""

    def __init__(self, message: str, member: str = "") -> None:
        super().__init__(message)
        self.member = member


@dataclass(frozen=True)
class Entry:
    """One name: a task in YAML, a task in Python, a group, or a tag. ``config`` has its includes merged in; read it only."""

    name: str
    kind: Kind
    path: Path | None = None
    config: Mapping[str, Any] | None = None
    tags: tuple[str, ...] = ()
    members: tuple[str, ...] = ()  # of a tag


@dataclass(frozen=True)
class BrokenFile:
    """A YAML that names no benchmark, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Index:
    """Entries by name, and the files that gave none."""

    entries: dict[str, Entry]
    broken: tuple[BrokenFile, ...] = ()


@dataclass(frozen=True)
class Leaf:
    """One task of a benchmark, with what its groups override; ``groups`` and tags above it, the outermost first."""

    name: str
    kind: Kind
    config: Mapping[str, Any]
    path: Path | None
    groups: tuple[str, ...] = ()


@cache
def harness_folder() -> Path:
    """Folder of lm-eval's own tasks; does not import it."""
    package = find_spec("lm_eval")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("lm-eval is not installed: pip install lm-eval")
    return Path(package.origin).parent / "tasks"


@cache
def harness_index() -> Index:
    """Index of lm-eval's own tasks. Takes about two seconds, once."""
    return read_index(harness_folder())


def yaml_files(folder: Path) -> list[Path]:
    """Every ``*.yaml`` and ``*.yml`` below ``folder``, in lm-eval's order."""
    found = (path for ending in ("*.yaml", "*.yml") for path in folder.rglob(ending))
    return sorted(
        (path for path in found if not any(part in IGNORED for part in path.relative_to(folder).parts)),
        key=lambda path: path.as_posix(),
    )


def read_index(folder: Path) -> Index:
    """Read every YAML below ``folder`` as lm-eval does: the first of two files that give one name wins.

    Of a field that stands twice the last wins here; `core.catalogue.task_yaml.check_yaml` refuses it in a person's file.
    """
    reader = _Reader()
    entries: dict[str, Entry] = {}
    broken: list[BrokenFile] = []
    nameless: list[Path] = []
    tagged: dict[str, set[str]] = {}
    for path in yaml_files(folder):
        try:
            config = reader.read(path)
        except YamlFault as error:
            broken.append(BrokenFile(path, str(error)))
            continue
        named = _named(config)
        if named is None:
            nameless.append(path)
            continue
        name, kind = named
        if name in entries:
            broken.append(BrokenFile(path, f"the name {name!r} is taken by {entries[name].path}"))
            continue
        tags = _strings(config.get("tag"))
        entries[name] = Entry(name, kind, path, config, tags)
        for tag in tags if kind != "group" else ():
            tagged.setdefault(tag, set()).add(name)
    for tag, members in tagged.items():
        if tag not in entries:
            entries[tag] = Entry(tag, "tag", members=tuple(sorted(members)))
    broken += [
        BrokenFile(path, "names neither a 'task' nor a 'group'")
        for path in nameless
        if Path(os.path.normpath(path)) not in reader.included
    ]
    return Index(entries, tuple(broken))


def leaves(entries: Mapping[str, Entry], name: str) -> list[Leaf]:
    """Return the tasks that a name stands for, in lm-eval's order, overrides of its groups applied.

    Raises `MemberError` where a member is not there, or a group holds itself.
    """
    return list(_leaves(entries, name, {}, ()))


def _leaves(
    entries: Mapping[str, Entry], name: str, overrides: Mapping[str, Any], above: tuple[str, ...]
) -> Iterator[Leaf]:
    if name not in entries:
        raise MemberError(f"its member {name!r} is not known", name)
    if name in above:
        raise MemberError(f"its member {name!r} holds it")
    entry = entries[name]
    config = entry.config or {}
    if entry.kind == "group":
        yield from _members(entries, name, config, overrides, (*above, name))
    elif entry.kind == "tag":
        for member in entry.members:
            yield from _leaves(entries, member, overrides, (*above, name))
    else:
        yield Leaf(name, entry.kind, {**config, **overrides, "task": name}, entry.path, above)


def _members(
    entries: Mapping[str, Entry],
    group: str,
    config: Mapping[str, Any],
    overrides: Mapping[str, Any],
    above: tuple[str, ...],
) -> Iterator[Leaf]:
    passed = {key: value for key, value in config.items() if key not in GROUP_FIELDS} | dict(overrides)
    listed = config.get("task")
    for member in listed if isinstance(listed, list) else []:
        if isinstance(member, str):
            yield from _leaves(entries, member, passed, above)
        elif isinstance(member, Mapping) and isinstance(member.get("group"), str):
            if member["group"] in entries:
                own = {key: value for key, value in member.items() if key != "group"}
                yield from _leaves(entries, member["group"], passed | own, above)
            else:
                yield from _members(entries, f"{group}::{member['group']}", member, passed, above)
        elif isinstance(member, Mapping) and isinstance(member.get("task"), str):
            own = {key: value for key, value in member.items() if key != "task"}
            if member["task"] in entries:
                yield from _leaves(entries, member["task"], passed | own, above)
            else:  # defined where it is listed
                name = f"{group}::{member['task']}"
                yield Leaf(name, "task", {**passed, **own, "task": name}, None, above)
        else:
            raise MemberError("an entry of its list has neither 'task' nor 'group'")


def _named(config: Mapping[str, Any]) -> tuple[str, Kind] | None:
    """Name and kind, decided as lm-eval does: a class before a group before a task."""
    kind: Kind = "python" if "class" in config else "group" if "group" in config else "task"
    name = config.get("group" if kind == "group" else "task")
    return (name, kind) if isinstance(name, str) else None


def _strings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(str(each) for each in value) if isinstance(value, list) else ()


class _Reader:
    """Parses each file once: templates are included by hundreds."""

    def __init__(self) -> None:
        self.included: set[Path] = set()
        self._parsed: dict[Path, dict[str, Any]] = {}

    def read(self, path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
        """Return a file with its includes merged, local fields first."""
        if path in above:
            raise YamlFault(f"the files include each other: {path.name}")
        if path in self._parsed:
            return self._parsed[path]
        config = read_task_value(path)
        if not isinstance(config, dict):
            raise YamlFault(f"not a mapping of fields but {type(config).__name__}")
        included = config.pop("include", None)
        merged: dict[str, Any] = {}
        for each in included if isinstance(included, list) else [included] if included else []:
            other = Path(os.path.normpath(path.parent / str(each)))
            self.included.add(other)
            merged |= {k: v for k, v in self.read(other, (*above, path)).items() if k != "task_list"}
        self._parsed[path] = merged | config
        return self._parsed[path]
