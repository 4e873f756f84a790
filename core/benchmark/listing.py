"""The listing of ``steelyard benchmarks``: every name a campaign can use, with its facts. No dataset is loaded, no code run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from core.benchmark.find import BUNDLED, entries, find, leaves_of
from core.catalogue.index import BrokenFile, Entry, Leaf, MemberError, harness_folder, harness_index, leaves, read_index
from core.errors import UserError, nearest
from core.spec.parts import benchmark_label
from core.spec.suite import Suite, suites
from core.yaml_file import read_yaml

KINDS = ("task", "python", "group", "tag", "suite", "bundled", "broken")
UNKNOWN = "unknown"
LICENCE_LINE = re.compile(r"^\W*licen[cs]e\W*:\W*(\w[^\n]{0,50}?)[\s.*_]*$", re.IGNORECASE | re.MULTILINE)
CARD_LICENCE = re.compile(r"^licen[cs]e:\s*(?:\n\s*-\s*)?([\w.+-]+)\s*$", re.IGNORECASE | re.MULTILINE)
BUNDLED_LICENCES = {"humaneval": "MIT"}
OURS = "Apache-2.0"


@dataclass(frozen=True)
class Listing:
    """One name of the catalogue. A group has the request types and datasets of its tasks; ``fault`` says why it cannot load."""

    name: str
    kind: str
    request_types: tuple[str, ...] = ()
    dataset: str = ""
    config: str = ""
    tags: tuple[str, ...] = ()
    version: str = ""
    num_fewshot: int | None = None
    licence: str = UNKNOWN
    tasks: int = 1
    path: str = ""
    fault: str = ""

    def row(self) -> dict[str, Any]:
        """The facts by name, for JSON."""
        return asdict(self)


def listings(folder: Path | None = None) -> list[Listing]:
    """List the whole catalogue, or what the YAMLs of ``folder`` name; files that cannot be read come last, with their fault."""
    if folder is not None:
        index = read_index(folder)
        return [*_entries(index.entries, index.entries, folder), *_broken(index.broken, folder)]
    known = entries()
    bundled = {name: entry for name, entry in known.items() if entry.path and entry.path.is_relative_to(BUNDLED)}
    others = {name: entry for name, entry in sorted(known.items()) if name not in bundled}
    index = harness_index()
    return [
        *(_suite(suite, known) for suite in suites().values()),
        *_entries(bundled, known, BUNDLED),
        *_entries(others, known, harness_folder()),
        *_broken(index.broken, harness_folder()),
    ]


def select(
    found: Iterable[Listing],
    search: str = "",
    *,
    tag: str | None = None,
    request_type: str | None = None,
    kind: str | None = None,
    suite: str | None = None,
) -> list[Listing]:
    """Keep what has every word of ``search`` in name, dataset or tags (or whose name matches it, with ``*``), and every option.

    Raises `core.errors.UserError` with the nearest value for an option that nothing can have.
    """
    everything = list(found)
    _check("type", request_type, {kind for each in everything for kind in each.request_types})
    _check("tag", tag, {tag for each in everything for tag in each.tags})
    _check("kind", kind, KINDS)
    _check("suite", suite, suites())
    members = {each.name for each in suites()[suite].members} if suite else None
    words = search.casefold().split()
    pattern = any(letter in search for letter in "*?[")
    return [
        each
        for each in everything
        if (fnmatchcase(each.name, search) if pattern else all(word in _text(each) for word in words))
        and (tag is None or tag in each.tags)
        and (request_type is None or request_type in each.request_types)
        and (kind is None or kind == each.kind)
        and (members is None or (each.name in members and each.kind != "suite"))
    ]


def summary(found: Iterable[Listing]) -> str:
    """Count names by kind, and those that cannot be loaded."""
    everything = list(found)
    counts = Counter(each.kind for each in everything)
    words = {"python": "tasks in Python", "bundled": "bundled", "broken": "broken files"}
    parts = [f"{counts[kind]:,} {words.get(kind, kind + 's')}" for kind in KINDS if counts[kind]]
    faulty = sum(bool(each.fault) for each in everything)
    return ", ".join(parts) + (f"; {faulty:,} cannot be loaded" if faulty else "")


def details(listing: Listing) -> dict[str, str]:
    """Return everything about one benchmark, its YAML checked: label → text, what is unknown left out."""
    own: dict[str, str] = {}
    tasks: list[Leaf] = []
    fault = listing.fault
    if listing.kind == "suite":
        suite = suites()[listing.name]
        members = [
            benchmark_label(each) + ("" if each.num_fewshot is None else f" ({each.num_fewshot}-shot)")
            for each in suite.members
        ]
        own = {"about": suite.description, "benchmarks": ", ".join(members)}
        tasks = [leaf for name in dict.fromkeys(each.name for each in suite.members) for leaf in leaves_of(name)]
    else:
        try:
            tasks = leaves_of(listing.name)
            find(listing.name)
        except UserError as error:
            fault = str(error)
    config = tasks[0].config if len(tasks) == 1 else {}
    splits = {name: config.get(f"{name}_split") for name in ("test", "validation", "training", "fewshot")}
    return {
        label: text
        for label, text in {
            "kind": listing.kind,
            **own,
            "request type": ", ".join(listing.request_types),
            "dataset": f"{listing.dataset} {listing.config}".strip(),
            "splits": ", ".join(f"{name}: {split}" for name, split in splits.items() if split),
            "few-shot": "" if listing.num_fewshot is None else str(listing.num_fewshot),
            "metrics": ", ".join(dict.fromkeys(metric for leaf in tasks for metric in _metrics(leaf))),
            "version": listing.version,
            "tags": ", ".join(listing.tags),
            "licence": listing.licence,
            "tasks": ", ".join(leaf.name for leaf in tasks) if len(tasks) > 1 else "",
            "YAML": listing.path,
            "fault": fault,
        }.items()
        if text
    }


def _metrics(leaf: Leaf) -> Iterator[str]:
    for entry in leaf.config.get("metric_list") or []:
        metric = entry.get("metric") if isinstance(entry, Mapping) else None
        if metric is not None:
            yield getattr(metric, "written", str(metric))


def _check(option: str, value: str | None, known: Iterable[str]) -> None:
    if value is not None and value not in known:
        listed = sorted(known)
        some = f"use one of {', '.join(listed)}" if len(listed) < 10 else "nothing in the catalogue has it"
        raise UserError(f"--{option} {value}: {some}{nearest(value, listed)}")


def _text(listing: Listing) -> str:
    return " ".join((listing.name, listing.dataset, *listing.tags)).casefold()


def _entries(chosen: Mapping[str, Entry], known: Mapping[str, Entry], root: Path) -> Iterator[Listing]:
    for name, entry in chosen.items():
        try:
            tasks, fault = leaves(known, name), ""
        except MemberError as error:
            tasks, fault = [], str(error)
        kind = "bundled" if root == BUNDLED else entry.kind
        path = str(entry.path) if entry.path else ""
        yield _listing(name, kind, entry.config or {}, tasks, tags=entry.tags, path=path, fault=fault)


def _listing(name: str, kind: str, config: Mapping[str, Any], tasks: list[Leaf], **facts: Any) -> Listing:
    metadata = config.get("metadata")
    version = metadata.get("version", "") if isinstance(metadata, Mapping) else ""
    datasets = list(dict.fromkeys(_dataset(leaf) for leaf in tasks))
    shots = {number if isinstance(number := leaf.config.get("num_fewshot"), int) else None for leaf in tasks}
    licences = {licence_of(leaf) for leaf in tasks}
    first = tasks[0].config if tasks else {}
    return Listing(
        name=name,
        kind=kind,
        request_types=tuple(dict.fromkeys(_request_type(leaf) for leaf in tasks if leaf.kind == "task")),
        dataset=datasets[0] if len(datasets) == 1 else f"{len(datasets)} datasets" if datasets else "",
        config=str(first.get("dataset_name") or "") if len(tasks) == 1 else "",
        version=str(version),
        num_fewshot=shots.pop() if len(shots) == 1 else None,
        licence=licences.pop() if len(licences) == 1 else UNKNOWN,
        tasks=len(tasks),
        **facts,
    )


def _suite(suite: Suite, known: Mapping[str, Entry]) -> Listing:
    tasks = [leaf for member in suite.members if member.name in known for leaf in leaves(known, member.name)]
    missing = [member.name for member in suite.members if member.name not in known]
    fault = f"its member {missing[0]!r} is not known" if missing else ""
    config = {"metadata": {"version": suite.version}}
    return _listing(suite.name, "suite", config, tasks, path=str(suite.path), fault=fault)


def _broken(files: Iterable[BrokenFile], root: Path) -> Iterator[Listing]:
    for each in files:
        name = each.path.relative_to(root).as_posix()
        yield Listing(name, "broken", tasks=0, path=str(each.path), fault=each.reason)


def _dataset(leaf: Leaf) -> str:
    path = leaf.config.get("dataset_path")
    made = leaf.config.get("custom_dataset") or leaf.config.get("class")
    return str(path) if path else getattr(made, "written", "")


def _request_type(leaf: Leaf) -> str:
    return str(leaf.config.get("output_type") or "generate_until")


def licence_of(leaf: Leaf) -> str:
    """Return a task's licence as its YAML, its folder's README or its dataset's card says; never asks the hub.

    Cards are those on this machine, and of well-known datasets what ``licences.yaml`` has of theirs.
    """
    metadata = leaf.config.get("metadata")
    if isinstance(metadata, dict) and (named := metadata.get("license") or metadata.get("licence")):
        return str(named)
    if leaf.path is not None and leaf.path.is_relative_to(BUNDLED):
        return BUNDLED_LICENCES.get(leaf.name, OURS)
    readme = _folder_licence(leaf.path.parent) if leaf.path is not None else None
    dataset = str(leaf.config.get("dataset_path"))
    return readme or _cards().get(dataset) or known_licences().get(dataset) or UNKNOWN


@cache
def known_licences() -> dict[str, str]:
    """Licences of well-known datasets by hub id."""
    found: dict[str, str] = read_yaml(Path(__file__).with_name("licences.yaml"), "licences")["licences"]
    return found


@cache
def _folder_licence(folder: Path) -> str | None:
    readme = folder / "README.md"
    match = LICENCE_LINE.search(readme.read_text(encoding="utf-8", errors="replace")) if readme.is_file() else None
    return match[1] if match else None


@cache
def _cards() -> dict[str, str]:
    """Licences by dataset, from the cards that the hub's cache on this machine holds."""
    from huggingface_hub import constants

    found = {}
    for card in sorted(Path(constants.HF_HUB_CACHE).glob("datasets--*/snapshots/*/README.md")):
        text = card.read_text(encoding="utf-8", errors="replace")
        front = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
        if match := CARD_LICENCE.search(front):
            found[card.parts[-4].removeprefix("datasets--").replace("--", "/")] = match[1]
    return found
