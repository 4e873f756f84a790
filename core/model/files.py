"""The files of a checkpoint, wherever they are: names, sizes and byte ranges. Weights are never read whole."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import HubUnreachableError, UserError, nearest
from core.model.facts import SAFETENSORS_DTYPES, Weights
from core.model.headers import read_header
from core.storage.open import open_filesystem

INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SHARD = re.compile(r"(?P<stem>.+)-\d+-of-(?P<count>\d+)(?P<ending>\.safetensors|\.bin)")
TENSOR_SAMPLE_BYTES = 4096
# Small files that decide what goes into the model and what comes out.
TEXT_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
# Notes about the file, not about the model.
VOLATILE_CONFIG = ("_name_or_path", "transformers_version")


@dataclass(frozen=True)
class Files:
    """Files directly under one checkpoint, by fsspec: in a directory, on S3 or on the hub.

    ``names`` maps name → size in bytes, ``ids`` name → a server's id of the content (ETag, blob id or LFS digest); a directory has
    none. ``revision`` is the hub's commit.
    """

    source: str
    revision: str | None
    names: dict[str, int]
    ids: dict[str, str]
    filesystem: Any
    root: str

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes of one file."""
        end = None if length is None else start + length
        return bytes(self.filesystem.cat_file(f"{self.root}/{name}", start=start, end=end))

    def content_id(self, name: str) -> str:
        """Return a string that changes when the file's content does.

        In a directory that is the digest of the whole file; of a safetensors file, its header and a piece of every tensor. Reading
        140 GB to plan a campaign would take minutes. Checkpoints of one training run differ in every tensor; an edit of a few rows
        of one tensor can go unseen.
        """
        if name in self.ids:
            return f"{self.names[name]}:{self.ids[name]}"
        with self.filesystem.open(f"{self.root}/{name}", "rb") as file:
            if not name.endswith(".safetensors"):
                return hashlib.file_digest(file, "sha256").hexdigest()
            header = read_header(self, name)
            digest = hashlib.sha256(json.dumps(header.values, sort_keys=True).encode())
            for tensor in sorted(header.tensors.values(), key=lambda t: (t.start, t.end)):
                size = tensor.end - tensor.start
                file.seek(header.data_start + tensor.start + max(0, (size - TENSOR_SAMPLE_BYTES) // 2))
                digest.update(file.read(min(size, TENSOR_SAMPLE_BYTES)))
        return digest.hexdigest()

    def json(self, name: str) -> dict[str, Any] | None:
        """Return a JSON file's object, None where there is no such file. Raises `core.errors.UserError`."""
        if name not in self.names:
            return None
        try:
            value = json.loads(self.read(name))
        except ValueError as error:
            raise UserError(f"{self.source!r}: {name} is not JSON ({error}): fetch the file again") from error
        if not isinstance(value, dict):
            raise UserError(f"{self.source!r}: {name} is not a JSON object: fetch the file again")
        return value


def open_files(source: str, revision: str | None) -> Files:
    """List the checkpoint's files. Raises `core.errors.UserError` where there are none or nobody answers."""
    if source.startswith("s3://"):
        return _s3_files(source)
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _listed(source, None, *open_filesystem(source))
    if folder.is_file():
        raise UserError(f"model {source!r} is a file: name the directory that holds config.json and the weights")
    if source.startswith(("/", ".", "~")) or source.count("/") != 1:
        siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UserError(f"model directory {source!r} does not exist{nearest(folder.name, siblings)}")
    return _hub_files(source, revision)


def _s3_files(source: str) -> Files:
    from botocore.exceptions import BotoCoreError

    try:
        return _listed(source, None, *open_filesystem(source))
    except FileNotFoundError as error:
        raise UserError(f"model {source!r}: no such bucket or prefix") from error
    except PermissionError as error:
        raise UserError(
            f"model {source!r}: access denied; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except (OSError, BotoCoreError) as error:
        raise UserError(
            f"model {source!r}: S3 does not answer ({type(error).__name__}); check AWS_ENDPOINT_URL"
        ) from error


def _hub_files(source: str, revision: str | None) -> Files:
    from huggingface_hub import HfApi, HfFileSystem, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(source)
    except HFValidationError as error:
        raise UserError(
            f"model {source!r}: no such directory here, and no name on the hub could be so: use namespace/name"
        ) from error
    try:
        commit = str(HfApi().model_info(source, revision=revision, timeout=10).sha)
        return _listed(source, commit, HfFileSystem(), f"{source}@{commit}")
    except RevisionNotFoundError as error:
        raise UserError(f"model {source!r}: the hub has no revision {revision!r}") from error
    except GatedRepoError as error:
        raise UserError(f"model {source!r} is gated: accept its licence on the hub and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"model {source!r}: no such directory here and no such repository on the hub (private ones need HF_TOKEN)"
        ) from error
    except Exception as error:  # the hub says no, or its HTTP client, whose errors have no base that stays
        try:
            folder = Path(snapshot_download(source, revision=revision, local_files_only=True))
        except (LocalEntryNotFoundError, OSError):
            raise HubUnreachableError(
                f"model {source!r}: no such directory here, the hub does not answer ({type(error).__name__}), "
                "and its cache on this machine does not hold it"
            ) from error
        return _listed(source, folder.name, *open_filesystem(str(folder)))


def _listed(source: str, revision: str | None, filesystem: Any, root: str) -> Files:
    names, ids = {}, {}
    for entry in filesystem.ls(root, detail=True):
        # A directory of the hub's cache holds links, whose type fsspec does not say.
        if entry["type"] == "file" or (entry.get("islink") and filesystem.isfile(entry["name"])):
            name = entry["name"].rsplit("/", 1)[-1]
            names[name] = int(entry["size"])
            if said := entry.get("ETag") or (entry.get("lfs") or {}).get("sha256") or entry.get("blob_id"):
                ids[name] = str(said).strip('"')
    return Files(source, revision, names, ids, filesystem, root)


def weight_files(files: Files) -> list[str]:
    """Name the files that vLLM would load. Raises `core.errors.UserError` where there are none or one is missing."""
    for index_name in INDEX_FILES:
        shards = sorted(set(_weight_map(files, index_name).values()))
        _check_shards(files, shards, f"named in {index_name}")
        if shards:
            return shards
    safetensors = [
        n for n in files.names if n.endswith(".safetensors") and not n.startswith(("consolidated", "adapter"))
    ]
    binaries = [n for n in files.names if n.startswith("pytorch_model") and n.endswith(".bin")]
    chosen = ["model.safetensors"] if "model.safetensors" in files.names else safetensors or binaries
    for parts in filter(None, map(SHARD.fullmatch, chosen)):
        stem, count, ending = parts["stem"], parts["count"], parts["ending"]
        every = [f"{stem}-{number:0{len(count)}}-of-{count}{ending}" for number in range(1, int(count) + 1)]
        _check_shards(files, every, f"one of the {int(count)} that the names of the others count")
    if chosen:
        return sorted(chosen)
    if any(name.endswith(".gguf") for name in files.names):
        raise UserError(f"{files.source!r} holds GGUF only: convert it to safetensors first")
    raise UserError(f"{files.source!r} has no weights (*.safetensors or pytorch_model*.bin)")


def _weight_map(files: Files, index_name: str) -> dict[str, str]:
    """Return tensor → file of an index, empty where there is none."""
    index = files.json(index_name) or {}
    found = index.get("weight_map", {})
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise UserError(
            f"{files.source!r}: the weight_map of {index_name} does not map tensors to files: fetch it again"
        )
    return found


def _check_shards(files: Files, shards: list[str], why: str) -> None:
    missing = [name for name in shards if name not in files.names]
    if missing:
        raise UserError(
            f"{files.source!r} lacks {missing[0]!r}, {why} "
            f"({len(missing)} of {len(shards)} shards missing): fetch the checkpoint again"
        )


def read_weights(files: Files) -> Weights:
    """Add up the weight files. Raises `core.errors.UserError` for one that is no whole safetensors file or lacks a tensor."""
    elements: Counter[str] = Counter()
    total, readable = 0, True
    held: dict[str, set[str]] = {}
    for name in weight_files(files):
        if not name.endswith(".safetensors"):
            total, readable = total + files.names[name], False
            continue
        tensors = read_header(files, name).tensors
        held[name] = set(tensors)
        for tensor in tensors.values():
            total += tensor.end - tensor.start
            elements[tensor.dtype] += tensor.elements
    for tensor_name, name in _weight_map(files, INDEX_FILES[0]).items():
        if name in held and tensor_name not in held[name]:
            raise UserError(
                f"{files.source!r}: {name} lacks tensor {tensor_name!r}, which {INDEX_FILES[0]} says it holds: "
                "fetch the checkpoint again"
            )
    plain = {SAFETENSORS_DTYPES[kind]: count for kind, count in elements.items() if kind in SAFETENSORS_DTYPES}
    return Weights(
        bytes=total,
        parameters=sum(elements.values()) if readable else None,
        dtype=max(plain, key=lambda kind: plain[kind]) if plain else None,
    )


def read_identity(files: Files, config: Mapping[str, Any]) -> str:
    """Digest of config, tokenizer, templates and weights: 64 hex digits, the same wherever a local copy lies."""
    parts = {
        "config.json": {key: value for key, value in config.items() if key not in VOLATILE_CONFIG},
        **{name: files.content_id(name) for name in TEXT_FILES if name in files.names},
        **{name: files.content_id(name) for name in weight_files(files)},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
