"""One call of ``datasets.load_dataset``: what it asks for, and what came of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from core.catalogue.index import Leaf

Kind = Literal["hub", "files", "folder"]

# How a dataset is fetched, not which rows it has.
TRANSPORT = frozenset({
    "cache_dir", "download_config", "download_mode", "keep_in_memory", "num_proc", "save_infos", "storage_options",
    "streaming", "token", "trust_remote_code", "verification_mode",
})  # fmt: skip
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_URL = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/")


@dataclass(frozen=True)
class DatasetCall:
    """Arguments of one call, what only says how to fetch left out."""

    path: str
    name: str | None = None
    revision: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Hub repository, files for one of the library's builders, or a folder on disk."""
        if self.path in builders():
            return "files"
        local = self.path.startswith(("/", ".", "~")) or self.path.count("/") > 1 or Path(self.path).is_dir()
        return "folder" if local else "hub"

    @property
    def repository(self) -> str | None:
        """Hub repository that the rows come from, None where they come from elsewhere."""
        if self.kind == "hub":
            return self.path
        found = {match[1] for url in self.files() if (match := HUB_URL.match(url))}
        return found.pop() if len(found) == 1 and self.kind == "files" else None

    @property
    def source(self) -> str:
        """The repository, the files or the folder."""
        return self.repository or (", ".join(self.files()) if self.kind == "files" else "") or self.path

    @property
    def label(self) -> str:
        """Its name in messages: ``openai/gsm8k main at v1``."""
        return " ".join(part for part in (self.source, self.name, self.revision and f"at {self.revision}") if part)

    def files(self) -> Iterator[str]:
        """Paths and URLs of its data files, where it names them."""
        listed = self.options.get("data_files")
        for group in listed.values() if isinstance(listed, Mapping) else [listed]:
            yield from map(str, group if isinstance(group, list | tuple) else [group] if group is not None else [])

    @property
    def entry(self) -> str:
        """Its folder in a mirror: the config's name, with a digest where other arguments choose the rows."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name or "default")
        if not self.options and self.kind == "hub":
            return name
        given = {key: value for key, value in self.options.items() if value is not None}
        text = json.dumps([self.path, given], sort_keys=True, default=str)
        return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}" if given else name


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset as it was loaded: ``revision`` is the hub's commit where it is known, ``place`` where the rows were."""

    dataset: str
    config: str | None
    revision: str | None
    place: str


def call_of(arguments: Mapping[str, Any], revision: str | None = None) -> DatasetCall:
    """Read the arguments of a call; ``revision`` is the campaign's pin of a hub dataset."""
    given = {key: value for key, value in arguments.items() if key not in ("path", "name", "revision", "config_kwargs")}
    given |= arguments.get("config_kwargs") or {}
    options = {key: value for key, value in given.items() if key not in TRANSPORT and value is not None}
    call = DatasetCall(str(arguments["path"]), arguments.get("name"), arguments.get("revision"), options)
    return replace(call, revision=revision) if revision is not None and call.kind == "hub" else call


def call_of_task(leaf: Leaf, revision: str | None = None) -> DatasetCall | None:
    """Return the call that a task will make, None where only its code knows."""
    config = leaf.config
    if leaf.kind == "python" or config.get("custom_dataset") is not None or config.get("dataset_path") is None:
        return None
    kwargs = config.get("dataset_kwargs") or {}
    return call_of({**kwargs, "path": config["dataset_path"], "name": config.get("dataset_name")}, revision)


def builders() -> frozenset[str]:
    """Names of the builders that read files: ``json``, ``csv``, ``parquet`` and so on."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    return frozenset(_PACKAGED_DATASETS_MODULES)


def commit_of(dataset: Any, repository: str | None) -> str | None:
    """Return the hub commit that a loaded ``Dataset`` or ``DatasetDict`` came from, None where it does not say."""
    parts = list(dataset.values()) if isinstance(dataset, Mapping) else [dataset]
    for part in parts:
        for url in getattr(getattr(part, "info", None), "download_checksums", None) or {}:
            match = HUB_URL.match(url)
            if match and match[1] == repository and match[2] and COMMIT.fullmatch(match[2]):
                return match[2]
    for part in parts:
        for file in getattr(part, "cache_files", None) or []:
            # The library's cache: <repository>/<config>/<version>/<commit>/<file>.arrow
            folder = Path(file["filename"]).parent.name
            if repository and COMMIT.fullmatch(folder):
                return folder
    return None
