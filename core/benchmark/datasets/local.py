"""Local files of a benchmark, read before anything starts as they will be loaded: their splits, and what is wrong with them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from core.benchmark.datasets.call import DatasetCall
from core.benchmark.datasets.route import without_hub
from core.catalogue.index import Leaf
from core.errors import nearest, root_of
from core.strict import Fault, shown, where_of
from core.yaml_file import Keys

MOST_BYTES = 256 << 20  # of files that are read whole; of more, the beginning
CHUNK = 1 << 20
LONGEST_REASON = 300  # characters
FILES: Keys = ("dataset_kwargs", "data_files")


@dataclass(frozen=True)
class LocalData:
    """What a call's local files give: each split, and whether it has rows; or what is wrong with them, and where that is said."""

    splits: Mapping[str, bool] = field(default_factory=dict)
    fault: str | None = None
    keys: Keys = FILES


def named_splits(call: DatasetCall) -> LocalData:
    """Return the splits of files that lie elsewhere, by their names in the YAML; their rows are not looked for."""
    listed = call.options.get("data_files")
    return LocalData(dict.fromkeys(map(str, listed) if isinstance(listed, Mapping) else ("train",), True))


def is_local(call: DatasetCall) -> bool:
    """Whether all that a call loads lies on this machine, so far as its arguments say."""
    return call.repository is None and not any("://" in file for file in call.files())


def local_faults(leaf: Leaf, data: LocalData) -> Iterator[Fault]:
    """Return what is wrong with a task's local data: a file that cannot be read, a split that is not there or has no rows."""
    if data.fault is not None:
        yield Fault(data.keys, data.fault)
        return
    for keys, split in _splits_of(leaf.config):
        if split not in data.splits:
            given = ", ".join(map(repr, data.splits))
            yield Fault(keys, f"{'.'.join(keys)} = {split!r}: the files give {given}{nearest(split, data.splits)}")
        elif not data.splits[split]:
            yield Fault(keys, f"{'.'.join(keys)} = {split!r}: the split has no rows")


def _splits_of(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Splits that lm-eval takes while it builds a task, each with its field: few-shot examples, docs to evaluate."""
    shots = config.get("fewshot_config")
    shots = shots if isinstance(shots, Mapping) else {}
    evaluated = next((name for name in ("test_split", "validation_split") if config.get(name) is not None), None)
    drawn: tuple[str, ...] | None = None
    if shots.get("split") is not None:
        drawn = ("fewshot_config", "split")
    elif config.get("fewshot_split") is not None:
        drawn = ("fewshot_split",)
    elif shots.get("samples") is None:
        usual = ("training_split", "validation_split", "test_split")
        drawn = next(((name,) for name in usual if config.get(name) is not None), None)
    for keys in dict.fromkeys((drawn, (evaluated,) if evaluated else None)):
        if keys is not None:
            yield keys, str((shots if len(keys) > 1 else config)[keys[-1]])


def read_local(call: DatasetCall) -> LocalData:
    """Read a call's local files as ``datasets`` does, into its cache, where the run finds them; of large ones the beginning."""
    if call.kind == "files" and not (call.options.get("data_files") or call.options.get("data_dir")):
        return LocalData(fault="dataset_kwargs.data_files is missing: name the files with it", keys=("dataset_path",))
    if call.options.get("split") is not None:
        told = f"dataset_kwargs.split = {call.options['split']!r}: leave it out, lm-eval takes splits by their names"
        return LocalData(fault=told, keys=("dataset_kwargs", "split"))
    for name, value in call.options.items():
        if call.kind == "files" and name not in (known := _options(call.path)):
            told = (
                f"dataset_kwargs.{name} = {shown(value)}: {call.path} files have no such option{nearest(name, known)}"
            )
            return LocalData(fault=told, keys=("dataset_kwargs", name))
    files = dict(_files(call))
    for path, keys in files.items():
        if _is_text(call, path) and (place := _not_utf8(path)):
            mend = "convert it, or name its encoding in dataset_kwargs.encoding"
            return _of_file(path, keys, f"it is not UTF-8 ({place}): {mend}")
    whole = sum(path.stat().st_size for path in files or _below(call)) <= MOST_BYTES
    with _quiet():
        try:
            loaded = _load(call, whole)
            return LocalData({str(name): _has_rows(rows) for name, rows in loaded.items()})
        except Exception as error:  # a builder's parser raises anything
            return _explained(call, files, whole, error)


def _explained(call: DatasetCall, files: Mapping[Path, Keys], whole: bool, error: Exception) -> LocalData:
    """Find the one file that cannot be read; what only all of them together show is told of all."""
    if call.kind == "files":
        for path, keys in files.items():
            alone = DatasetCall(call.path, call.name, None, {**call.options, "data_files": str(path), "data_dir": None})
            try:
                _load(alone, whole)
            except Exception as cause:  # as above
                return _of_file(path, keys, _told(call, path, cause))
    keys = FILES if call.kind == "files" else ("dataset_path",)
    return LocalData(fault=f"{call.source!r} cannot be read: {_reason(error)}", keys=keys)


def _of_file(path: Path, keys: Keys, told: str) -> LocalData:
    return LocalData(fault=f"{where_of(keys)} = {str(path)!r}: {told}", keys=keys)


def _told(call: DatasetCall, path: Path, error: Exception) -> str:
    if _is_empty(path, error):
        return "the split has no rows"
    return f"it cannot be read as {call.path}: {_reason(error)}"


def _is_empty(path: Path, error: Exception) -> bool:
    """Whether a file has no rows, which each builder says in its own way."""
    if isinstance(error, StopIteration) or "corresponds to no data" in str(error) or not path.stat().st_size:
        return True
    if type(root_of(error)).__name__ == "EmptyDataError":  # of pandas
        return True
    with suppress(Exception):  # it may be no Parquet at all
        from pyarrow import parquet

        return bool(parquet.read_metadata(path).num_rows == 0)
    return False


def _reason(error: Exception) -> str:
    """What a builder's parser says, on one line."""
    cause = root_of(error)
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}"[:LONGEST_REASON]


def _load(call: DatasetCall, whole: bool) -> Mapping[str, Any]:
    import datasets

    options = {name: value for name, value in call.options.items() if value is not None}
    loaded: Mapping[str, Any] = datasets.load_dataset(call.path, call.name, **options, streaming=not whole)
    return loaded


def _has_rows(rows: Any) -> bool:
    return next(iter(rows), None) is not None


def _files(call: DatasetCall) -> Iterator[tuple[Path, Keys]]:
    """Each local file of a call with the keys that lead to it in the YAML, patterns resolved."""
    listed, folder = call.options.get("data_files"), Path(str(call.options.get("data_dir") or ""))
    for split, group in listed.items() if isinstance(listed, Mapping) else [(None, listed)]:
        keys = FILES if split is None else (*FILES, split)
        for pattern in group if isinstance(group, list | tuple) else [group] if group is not None else []:
            yield from ((path, keys) for path in matching(folder / str(pattern)) if path.is_file())


def _below(call: DatasetCall) -> Iterator[Path]:
    """Files of a call's folder, of which ``datasets`` takes what it knows."""
    folder = Path(call.path if call.kind == "folder" else str(call.options.get("data_dir") or ""))
    return (path for path in folder.rglob("*") if path.is_file())


def matching(pattern: Path) -> list[Path]:
    """Return the paths that a path with ``*`` and ``**`` in it stands for; the path itself where it is there."""
    anchor = Path(pattern.anchor or ".")
    return [pattern] if pattern.exists() else sorted(anchor.glob(str(pattern.relative_to(pattern.anchor))))


def _is_text(call: DatasetCall, path: Path) -> bool:
    """Whether a builder reads a file as UTF-8: it can be told an encoding, is told none, and the file is not compressed."""
    if call.kind != "files" or call.options.get("encoding") not in (None, "utf-8", "utf8", "UTF-8"):
        return False
    from datasets.utils.extract import Extractor

    return "encoding" in _options(call.path) and not Extractor.infer_extractor_format(path)


@cache
def _options(builder: str) -> frozenset[str]:
    """Names of the arguments that `datasets.load_dataset` takes with one of its builders of files."""
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    module = import_module(_PACKAGED_DATASETS_MODULES[builder][0])
    configs = (each for each in vars(module).values() if isinstance(each, type) and is_dataclass(each))
    own = {entry.name for each in configs for entry in fields(each)}
    return frozenset(own | inspect.signature(datasets.load_dataset).parameters.keys())


def _not_utf8(path: Path) -> str | None:
    """Return the first byte of a file that is not UTF-8, with its line; None where all are."""
    line = 1
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            chunk += file.readline()
            try:
                chunk.decode()
            except UnicodeDecodeError as error:
                line += chunk.count(b"\n", 0, error.start)
                return f"byte 0x{chunk[error.start]:02x} on line {line}"
            line += chunk.count(b"\n")
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library off the terminal and off the network: what it logs of a fault is in the error too."""
    import datasets

    logger, bars = logging.getLogger("datasets"), datasets.are_progress_bars_disabled()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        with without_hub(True):
            yield
    finally:
        logger.setLevel(before)
        if not bars:
            datasets.enable_progress_bars()
