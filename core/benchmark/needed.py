"""The datasets of a campaign: where each would come from, whether it can be had, and fetching them before a GPU is held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from core.benchmark.datasets.call import DatasetCall, LoadedDataset, call_of_task
from core.benchmark.datasets.local import FILES, LocalData, is_local, local_faults, matching, named_splits, read_local
from core.benchmark.datasets.made import Making, fetch_origins
from core.benchmark.datasets.mirror import Mirror
from core.benchmark.datasets.route import Route, cached, hub_fault, why_offline
from core.benchmark.find import leaves_of
from core.benchmark.load import load_tasks
from core.benchmark.targets import count_in_whole_numbers, doubt_of, faults_in_words, refuse_hopeless, target_of
from core.catalogue.index import Leaf
from core.catalogue.task_yaml import fault_lines
from core.errors import UserError
from core.spec.parts import BenchmarkSpec, DatasetsSpec, benchmark_label

HUB_SECONDS = 10
AT_ONCE = 8  # questions to the hub
MEND = "run 'steelyard datasets fetch --to MIRROR' where there is a hub, and set datasets.mirror"


@dataclass(frozen=True)
class Status:
    """One dataset of a campaign. ``fault`` says why it cannot be had and what mends that; None where it can."""

    benchmarks: tuple[str, ...]
    dataset: str
    configs: tuple[str, ...]
    revision: str | None
    place: str
    fault: str | None = None


@dataclass(frozen=True)
class Wanted:
    """A call that a benchmark's task will make; None and ``code`` where only its code knows."""

    benchmark: str
    call: DatasetCall | None
    code: str = ""
    leaf: Leaf | None = None


def wanted(benchmark: BenchmarkSpec) -> list[Wanted]:
    """Return what a benchmark's tasks load; runs none of their code. Raises `core.errors.UserError`."""
    label, found = benchmark_label(benchmark), []
    for leaf in leaves_of(benchmark.name):
        call = call_of_task(leaf, benchmark.dataset_revision)
        code = getattr(leaf.config.get("class") or leaf.config.get("custom_dataset"), "written", "")
        found.append(Wanted(label, call, code if call is None else "", leaf))
    hub = {each.call.path for each in found if each.call and each.call.kind == "hub"}
    if benchmark.dataset_revision is not None and len(hub) != 1:
        several = f"{len(hub)} hub datasets: list its tasks, each with its own"
        which = several if hub else "no hub dataset that could be pinned"
        raise UserError(f"benchmark {label!r}: dataset_revision = {benchmark.dataset_revision!r}, but it has {which}")
    return found


def statuses(benchmarks: Iterable[BenchmarkSpec], spec: DatasetsSpec) -> list[Status]:
    """Return where every dataset would come from. The hub is asked for 10 s at most, and not again once it is silent.

    Raises `core.errors.UserError` where a benchmark or the mirror cannot be read.
    """
    everything = [each for benchmark in benchmarks for each in wanted(benchmark)]
    mirror = Mirror(spec.mirror) if spec.mirror else None
    calls = {_key(each.call): each.call for each in everything if each.call is not None}
    judge = partial(_judge, mirror=mirror, offline=spec.offline, in_hub=cache(_hub_fault))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        judged = dict(zip(calls, pool.map(judge, calls.values()), strict=True))
    rows: dict[tuple[Any, ...], tuple[dict[str, None], dict[str, None]]] = {}
    for each in everything:
        place, fault = judged[_key(each.call)] if each.call else ("code", None)
        dataset = each.call.source if each.call else each.code
        row = rows.setdefault((dataset, each.call.revision if each.call else None, place, fault), ({}, {}))
        row[0][each.benchmark] = None
        if each.call and each.call.name:
            row[1][each.call.name] = None
    return [
        Status(tuple(labels), dataset, tuple(configs), revision, place, fault)
        for (dataset, revision, place, fault), (labels, configs) in rows.items()
    ]


def faults(benchmarks: Sequence[BenchmarkSpec], spec: DatasetsSpec) -> list[str]:
    """Return one line for each dataset that cannot be had: benchmarks, dataset, reason and mend; one alone for no mirror.

    Of local files, which are read, each fault with its place in the YAML: a file, a split, rows.
    """
    try:
        if spec.mirror is not None:
            Mirror(spec.mirror).check()
    except UserError as error:
        return [str(error)]
    missing = [
        f"benchmark {', '.join(map(repr, status.benchmarks))}: dataset {status.dataset!r} cannot be had: {status.fault}"
        for status in statuses(benchmarks, spec)
        if status.fault and status.place != "disk"
    ]
    return [*missing, *_local_faults(benchmarks)]


def _local_faults(benchmarks: Iterable[BenchmarkSpec]) -> list[str]:
    """Return a line for each thing wrong with local files, and for splits that files elsewhere do not give."""
    read: dict[tuple[Any, ...], LocalData] = {}
    lines: list[str] = []
    for each in (need for benchmark in benchmarks for need in wanted(benchmark)):
        call, leaf = each.call, each.leaf
        if call is None or leaf is None or call.kind == "hub":
            continue
        data = read.get(_key(call)) or read.setdefault(_key(call), _local(call))
        found = list(local_faults(leaf, data))
        if leaf.path is None:
            lines += [f"benchmark {each.benchmark!r}: {fault.message}" for fault in found]
        else:
            lines += fault_lines(leaf.path, leaf.config, found)
    return list(dict.fromkeys(lines))


def _local(call: DatasetCall) -> LocalData:
    missing = None if call.repository else _on_disk(call)[1]
    if missing is None:
        return read_local(call) if is_local(call) else named_splits(call)
    return LocalData(fault=missing, keys=FILES if call.kind == "files" else ("dataset_path",))


def fetch(
    benchmarks: Sequence[BenchmarkSpec],
    spec: DatasetsSpec,
    to: str | None = None,
    report: Callable[[str, LoadedDataset], None] = lambda label, loaded: None,
) -> list[str]:
    """Load every dataset into this machine's cache, and a copy into the mirror ``to``; ``report`` is called with each.

    Returns a line for each benchmark whose datasets cannot be had; the others are fetched.
    """
    failed = []
    for benchmark in benchmarks:
        route = Route(spec, benchmark.dataset_revision, Mirror(to) if to else None)
        try:
            wanted(benchmark)
            making = Making(None, 0, benchmark.metadata, spec, benchmark.dataset_revision, to)
            made, origins = fetch_origins(benchmark.name, leaves_of(benchmark.name), making)
            route.loaded += origins
            load_tasks(benchmark.name, route, benchmark.metadata, made)
        except UserError as error:
            failed.append(str(error))
        for loaded in route.loaded:
            report(benchmark_label(benchmark), loaded)
    return failed


def doubts(benchmarks: Iterable[BenchmarkSpec], spec: DatasetsSpec) -> list[str]:
    """Return what rows on this machine's disk show to be wrong with targets; a line for each task that has such docs.

    Benchmarks with other rows, or with code that makes them, are not loaded. Raises `core.errors.UserError` where rows cannot be
    loaded, or no target of a task is right.
    """
    lines = []
    for benchmark in benchmarks:
        if not all(each.call and _lies_here(each.call) for each in wanted(benchmark)):
            continue
        tasks, _ = load_tasks(benchmark.name, Route(spec, benchmark.dataset_revision))
        for name, task in tasks.items():
            count_in_whole_numbers(task)
            targets = {
                number: target_of(task, doc) for number, doc in enumerate(islice(task.eval_docs, benchmark.limit))
            }
            refuse_hopeless(benchmark.name, name, task, targets)
            if faults := faults_in_words(name, targets):
                lines.append(doubt_of(benchmark_label(benchmark), faults, len(targets)))
    return lines


def _lies_here(call: DatasetCall) -> bool:
    return call.kind == "files" and call.repository is None and not any("://" in file for file in call.files())


def _key(call: DatasetCall | None) -> tuple[Any, ...]:
    return (call.path, call.name, call.revision, call.entry) if call else ()


def _judge(
    call: DatasetCall, mirror: Mirror | None, offline: bool, in_hub: Callable[[str, str | None], str | None]
) -> tuple[str, str | None]:
    """Return a dataset's place and its fault."""
    try:
        if mirror and mirror.find(call):
            return "mirror", None
    except UserError as error:
        return "mirror", str(error)
    if call.repository is None:
        return _on_disk(call)
    silent = offline or hub_fault() is not None
    fault = why_offline(offline) if silent else in_hub(call.repository, call.revision)
    if fault is None:
        return "hub", None
    if cached(call):
        return "cache", None
    if silent:
        cache_alone = "the cache on this machine does not hold it"
        held = "neither the mirror nor the cache on this machine holds it" if mirror else cache_alone
        fault = f"{fault}, and {held}: {MEND}"
    return "hub", fault


def _on_disk(call: DatasetCall) -> tuple[str, str | None]:
    if call.kind == "folder":
        there = Path(call.path).expanduser().is_dir()
        return "disk", None if there else f"there is no folder {call.path!r} here; correct dataset_path"
    remote = [file for file in call.files() if "://" in file]
    folder = Path(str(call.options.get("data_dir") or ".")).expanduser()
    for file in call.files():
        if "://" not in file and not matching(folder / file):
            fault = f"there is no file {file!r} (looked in {folder.resolve()}); correct dataset_kwargs.data_files"
            return "disk", fault
    return ("url" if remote else "disk"), None


def _hub_fault(repository: str, revision: str | None) -> str | None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        HfApi().dataset_info(repository, revision=revision, timeout=HUB_SECONDS)
    except GatedRepoError:
        return "it is gated: accept its terms on the hub and set HF_TOKEN"
    except (RepositoryNotFoundError, HFValidationError):
        return "the hub has no such dataset; correct its name (private ones need HF_TOKEN)"
    except RevisionNotFoundError:
        return f"the hub has no revision {revision!r} of it; correct dataset_revision"
    except Exception as error:  # its HTTP client's errors have no base that stays
        return f"the hub does not answer ({type(error).__name__}); run again"
    return None
