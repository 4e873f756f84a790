"""Names that stand for several benchmarks: suites, which come with Steelyard, and folders of task YAMLs. Each member is its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import nearest
from core.spec.parts import BenchmarkSpec, benchmark_label
from core.yaml_file import read_yaml

SUITES = Path(__file__).parent / "suites"
PER_MEMBER = ("name", "label", "dataset_revision", "suite")


@dataclass(frozen=True)
class Suite:
    """A list of benchmarks under one name. Another list or other settings are another version."""

    name: str
    version: str
    description: str
    members: tuple[BenchmarkSpec, ...]
    path: Path

    @property
    def label(self) -> str:
        """Name and version, as results record them."""
        return f"{self.name} {self.version}"


@cache
def suites() -> dict[str, Suite]:
    """The suites by name, each a YAML in lm-eval's group format: members, with a number of few-shot examples where it differs."""
    return {path.stem: _read(path) for path in sorted(SUITES.glob("*.yaml"))}


def _read(path: Path) -> Suite:
    config: dict[str, Any] = read_yaml(path, "suite")
    metadata = config["metadata"]
    listed = ({"task": each} if isinstance(each, str) else each for each in config["task"])
    members = tuple(BenchmarkSpec(name=each.pop("task"), **each) for each in map(dict, listed))
    return Suite(config["group"], str(metadata["version"]), metadata["description"], members, path)


def is_path(name: str) -> bool:
    """Whether a benchmark is named by the path of its YAML."""
    return name.endswith((".yaml", ".yml"))


def is_folder(name: str) -> bool:
    """Whether a name is the path of a folder of task YAMLs; no benchmark of the catalogue has a slash in its name."""
    return "/" in name and not is_path(name)


def expanded(benchmarks: Sequence[BenchmarkSpec]) -> list[BenchmarkSpec]:
    """Return benchmarks with a suite's or folder's members where its name stands; settings given with the name hold for each.

    A benchmark that is named itself keeps its own settings; what several suites list comes once. Raises `ValueError` where a name
    cannot be expanded or two suites disagree.
    """
    named = {benchmark_label(each) for each in benchmarks if not _stands_for_several(each)}
    origins: dict[str, tuple[str, BenchmarkSpec]] = {}
    found: list[BenchmarkSpec] = []
    for entry in benchmarks:
        if not _stands_for_several(entry):
            found.append(entry)
            continue
        for member in _members(entry):
            label = benchmark_label(member)
            if label in named:
                continue
            origin, other = origins.setdefault(label, (entry.name, member))
            if other is member:
                found.append(member)
            elif other.model_copy(update={"suite": member.suite}) != member:
                raise ValueError(
                    f"{label!r} comes from {origin!r} and {entry.name!r} with other settings; list it with the settings you want"
                )
    return found


def _stands_for_several(entry: BenchmarkSpec) -> bool:
    return entry.name in suites() or is_folder(entry.name)


def _members(entry: BenchmarkSpec) -> Iterator[BenchmarkSpec]:
    if entry.dataset_revision is not None:
        raise ValueError(f"{entry.name!r}: dataset_revision is one dataset's; list the benchmark itself with it")
    if entry.label:
        raise ValueError(f"{entry.name!r}: label is one benchmark's; list the benchmark itself with it")
    given = {field: getattr(entry, field) for field in entry.model_fields_set if field not in PER_MEMBER}
    suite = suites().get(entry.name)
    if suite is not None:
        for member in suite.members:
            yield member.model_copy(update={**given, "suite": suite.label})
        return
    try:
        paths = folder_members(Path(entry.name))
    except OSError as error:
        raise ValueError(f"{entry.name!r}: it cannot be read: {error.strerror or error}") from error
    for path in paths:
        yield BenchmarkSpec(name=str(path), **given)


def folder_members(folder: Path) -> list[Path]:
    """YAMLs below ``folder`` that are tasks or groups of their own, neither a group's member nor a template.

    Raises `ValueError` where there are none, or one names no benchmark.
    """
    from core.catalogue.index import MemberError, leaves, read_index

    if not folder.expanduser().is_dir():
        siblings = [each.name for each in folder.parent.glob("*/")] if folder.parent.is_dir() else []
        raise ValueError(f"{str(folder)!r}: no such folder{nearest(folder.name, siblings)}")
    index = read_index(folder.expanduser())
    if index.broken:
        each = index.broken[0]
        raise ValueError(f"{str(each.path)!r}: {each.reason}; mend it, or name the folder's YAMLs one by one")
    groups = {name: entry for name, entry in index.entries.items() if entry.kind == "group"}
    below: set[str] = set()
    for name, entry in groups.items():
        below |= _listed(entry.config or {})
        try:
            below |= {leaf.name for leaf in leaves(index.entries, name)}
        except MemberError:
            continue  # a member of the catalogue, or one that is not there: the benchmark's own check says so
    found = [each.path for name, each in index.entries.items() if each.path is not None and name not in below]
    if not found:
        raise ValueError(
            f"{str(folder)!r}: no task YAML in it; a Python task needs one too, say 'task: NAME' and 'class: !function file.Class'"
        )
    return found


def _listed(config: Any) -> set[str]:
    found: set[str] = set()
    for member in config.get("task") or []:
        if isinstance(member, str):
            found.add(member)
        elif isinstance(member, dict):
            found |= {str(member[key]) for key in ("group", "task") if isinstance(member.get(key), str)}
            found |= _listed(member) if "group" in member else set()
    return found
