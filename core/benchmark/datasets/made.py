"""Docs that a task's own code makes for a tokenizer, as RULER's do: made once for each tokenizer, seed and arguments, and kept.

The code runs in a process of its own (`core.benchmark.datasets.making`): it draws from the interpreter's random numbers, keeps
state in its modules, and prints. So the same task has the same docs alone and in a group, in every process and on every machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from core.benchmark.datasets.call import LoadedDataset
from core.benchmark.loading import LOADING
from core.catalogue.arguments import TOKENIZER, Reads, reads
from core.catalogue.index import Leaf
from core.child import with_our_modules
from core.errors import UserError, reason_of
from core.log import log
from core.spec.parts import DatasetsSpec
from core.storage.open import cache_dir
from core.yaml_file import FunctionName

MADE, FAULT, OUTPUT = "made.json", "fault.txt", "output.txt"
LONGEST_SECONDS = 6 * 3600
# Of a tokenizer's config: where it came from, and how it is asked.
NO_COUNTING = frozenset({"chat_template", "is_local", "local_files_only", "name_or_path", "_commit_hash"})
_ACTIVE: ContextVar[Mapping[str, Any] | None] = ContextVar("made", default=None)


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer as tasks are told of it: a directory or a hub id."""

    source: str
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Making:
    """What docs are made with, besides a task's own code. ``metadata`` is the benchmark's in the spec."""

    tokenizer: Tokenizer | None
    seed: int
    metadata: Mapping[str, Any]
    datasets: DatasetsSpec
    revision: str | None = None
    save_to: str | None = None


@dataclass(frozen=True)
class Job:
    """One task's docs to make, for the process that does; JSON throughout. ``arguments`` go to ``function`` by name."""

    task: str
    folder: str
    function: str
    arguments: Mapping[str, Any]
    key: str


def for_tokenizer(leaf: Leaf) -> Reads | None:
    """Return what a task's code reads where it makes its docs for a tokenizer, else None."""
    function = leaf.config.get("custom_dataset")
    found = reads(function) if isinstance(function, FunctionName) else None
    return found if found and found.tokenizer else None


def make_docs(
    benchmark: str, leaves: Iterable[Leaf], making: Making, *, keep: bool = True
) -> tuple[dict[str, Any], list[LoadedDataset]]:
    """Make the docs of those tasks that make theirs for a tokenizer, or take them from the cache of this machine.

    Returns (task → split → ``datasets.Dataset``), and the datasets that they were made from. Without ``keep`` they are made anew
    and not cached. Raises `core.errors.UserError` naming benchmark, task and reason.
    """
    wanted = [(leaf, found) for leaf in leaves if (found := for_tokenizer(leaf))]
    if not wanted:
        return {}, []
    try:
        with _workplace(keep) as root:
            jobs = [_job(leaf, found, making) for leaf, found in wanted]
            folders = _kept(benchmark, jobs, making, root)
            docs = {job.task: _read(folders[job.key]) for job in jobs}
            loaded = dict.fromkeys(each for folder in folders.values() for each in _loaded_from(folder))
    except UserError as error:
        raise UserError(f"benchmark {benchmark!r} cannot be loaded: {error}") from error
    return docs, list(loaded)


@contextmanager
def _workplace(keep: bool) -> Iterator[Path]:
    if keep:
        yield cache_dir() / "docs"
        return
    with tempfile.TemporaryDirectory(prefix="steelyard-docs-") as folder:
        yield Path(folder)


def fetch_origins(benchmark: str, leaves: Iterable[Leaf], making: Making) -> tuple[dict[str, Any], list[LoadedDataset]]:
    """Make docs as `make_docs` does for a tokenizer of words, so that what they are made from is fetched; no model is needed."""
    with LOADING:
        from transformers import PreTrainedTokenizerFast
    from tokenizers import Tokenizer as Words
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    with tempfile.TemporaryDirectory(prefix="steelyard-tokenizer-") as folder:
        unknown = "?"
        words = Words(WordLevel({unknown: 0}, unk_token=unknown))
        words.pre_tokenizer = Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=words, unk_token=unknown).save_pretrained(folder)
        return make_docs(benchmark, leaves, replace(making, tokenizer=Tokenizer(folder)), keep=False)


def _job(leaf: Leaf, found: Reads, making: Making) -> Job:
    config, function = leaf.config, leaf.config["custom_dataset"]
    if making.tokenizer is None:
        raise UserError(f"{leaf.name!r} makes its docs for a model's tokenizer, and no model is given")
    model = dict.fromkeys(TOKENIZER, making.tokenizer.source)  # lm-eval: the model's arguments, then --metadata
    own = config.get("metadata") or {}
    own = own if isinstance(own, Mapping) else {"_metadata": own}
    given = {**model, **own, **making.metadata, **(config.get("dataset_kwargs") or {})}
    key = {
        "function": function.written,
        "files": [hashlib.sha256(file.read_bytes()).hexdigest() for file in found.files],
        "packages": {**found.packages(), "lm-eval": version("lm-eval")},
        "arguments": {name: value for name, value in given.items() if name not in TOKENIZER},
        "tokenizer": tokenizer_digest(str(given["tokenizer"]), making.tokenizer.trust_remote_code),
        "seed": making.seed,
        "revision": making.revision,
    }
    text = json.dumps(key, sort_keys=True, default=str)
    arguments = {**given, "config_source": str(leaf.path or "inline")}
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Job(
        leaf.name, str(function.folder), function.written, json.loads(json.dumps(arguments, default=str)), digest
    )


@lru_cache(maxsize=64)
def tokenizer_digest(source: str, trust_remote_code: bool) -> str:
    """Hash a tokenizer as it is loaded: the same for two checkpoints that bring the same. Raises `core.errors.UserError`."""
    with LOADING, tempfile.TemporaryDirectory(prefix="steelyard-tokenizer-") as folder:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
            tokenizer.save_pretrained(folder)
        except Exception as error:  # a tokenizer's files may make its class raise anything
            raise UserError(f"the tokenizer {source!r} cannot be loaded: {reason_of(error)}") from error
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".jinja")
        hashed = [f"{path.name} {hashlib.sha256(_counting(path)).hexdigest()}" for path in files]
    return hashlib.sha256("\n".join([type(tokenizer).__name__, *hashed]).encode()).hexdigest()


def _counting(file: Path) -> bytes:
    """Return of a tokenizer's file what tokens are counted by."""
    if file.name != "tokenizer_config.json":
        return file.read_bytes()
    fields = json.loads(file.read_text(encoding="utf-8"))
    return json.dumps({name: fields[name] for name in sorted(fields.keys() - NO_COUNTING)}).encode()


def _kept(benchmark: str, jobs: Iterable[Job], making: Making, root: Path) -> dict[str, Path]:
    """Return each job's folder by its key, made where it is not there yet; of two processes the second waits for the first."""
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    by_key = {job.key: job for job in jobs}
    with ExitStack() as held:
        for key in sorted(by_key):
            if not (root / key / MADE).is_file():
                held.enter_context(FileLock(root / f"{key}.lock"))
        missing = [job for key, job in sorted(by_key.items()) if not (root / key / MADE).is_file()]
        if missing:
            log.info(f"{benchmark}: making docs of {', '.join(job.task for job in missing)} for the model's tokenizer")
            scratch = root / f"making-{secrets.token_hex(8)}"
            try:
                for key, folder in _make(missing, making, scratch).items():
                    shutil.rmtree(root / key, ignore_errors=True)
                    folder.rename(root / key)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return {key: root / key for key in by_key}


def _make(jobs: list[Job], making: Making, scratch: Path) -> dict[str, Path]:
    """Run the code of every job. Returns folders in ``scratch`` by key."""
    scratch.mkdir(parents=True, exist_ok=True)
    asked = {
        "jobs": [asdict(job) for job in jobs],
        "seed": making.seed,
        "trust_remote_code": bool(making.tokenizer and making.tokenizer.trust_remote_code),
        "datasets": making.datasets.model_dump(),
        "revision": making.revision,
        "save_to": making.save_to,
        "folder": str(scratch),
    }
    with (scratch / OUTPUT).open("wb") as output:
        command = [sys.executable, "-m", "core.benchmark.datasets.making"]
        try:
            subprocess.run(
                command,
                input=json.dumps(asked).encode(),
                stdout=output,
                stderr=output,
                env=with_our_modules(os.environ),
                timeout=LONGEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"its code makes docs for more than {LONGEST_SECONDS // 3600} hours: check its metadata"
            ) from error
    for job in jobs:
        folder = scratch / job.key
        if not (folder / MADE).is_file():
            raise UserError(_fault(job, folder, scratch / OUTPUT, making))
    return {job.key: scratch / job.key for job in jobs}


def _fault(job: Job, folder: Path, output: Path, making: Making) -> str:
    if (folder / FAULT).is_file():
        reason = (folder / FAULT).read_text(encoding="utf-8")
    else:
        lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = f"its process ended: {lines[-1] if lines else 'it said nothing'}"
    given = ", ".join(f"{name} = {value!r}" for name, value in making.metadata.items())
    return (
        f"docs of {job.task!r} cannot be made by {job.function}{f' with metadata {given}' if given else ''}: {reason}"
    )


def _read(folder: Path) -> Any:
    import pyarrow.parquet as pq
    from datasets import Dataset, DatasetDict

    splits = json.loads((folder / MADE).read_text(encoding="utf-8"))["splits"]
    return DatasetDict({split: Dataset(pq.read_table(folder / name)) for split, name in splits.items()})


def _loaded_from(folder: Path) -> Iterator[LoadedDataset]:
    for fields in json.loads((folder / MADE).read_text(encoding="utf-8"))["loaded"]:
        yield LoadedDataset(**fields)


@contextmanager
def in_place(docs: Mapping[str, Any]) -> Iterator[None]:
    """Have lm-eval's tasks of these names take these docs, in this thread, instead of having them made."""
    token = _ACTIVE.set(docs)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def look_for_made() -> None:
    """Have lm-eval's tasks look for docs that are made already, once."""
    from lm_eval.api.task import ConfigurableTask

    original = ConfigurableTask.download
    if hasattr(original, "steelyard"):
        return

    def download(self: Any, *args: Any, **kwargs: Any) -> None:
        docs = (_ACTIVE.get() or {}).get(self.config.task)
        if docs is None:
            original(self, *args, **kwargs)
        else:
            self.dataset = docs

    download.steelyard = True  # type: ignore[attr-defined]
    ConfigurableTask.download = download
