"""The files of a checkpoint, in a directory, on S3 or on the hub: names, sizes and byte ranges."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import HubUnreachableError, TransientError, UserError, nearest
from core.storage.open import open_filesystem
from core.storage.s3 import explanation, is_s3_error, is_transient


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
        with explained(self.source):
            return bytes(self.filesystem.cat_file(f"{self.root}/{name}", start=start, end=end))

    def below(self, levels: int | None = None) -> list[str]:
        """Return the paths of files in folders under the checkpoint, at most ``levels`` of folders deep."""
        with explained(self.source):
            found = self.filesystem.find(self.root, maxdepth=None if levels is None else levels + 1)
        paths = (path.removeprefix(f"{self.root}/") for path in found)
        return [path for path in paths if "/" in path]

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
        with explained(source):
            return _listed(source, None, *open_filesystem(source))
    folder = Path(source).expanduser()
    if folder.is_dir():
        with explained(source):
            return _listed(source, None, *open_filesystem(source))
    if folder.is_file():
        raise UserError(f"model {source!r} is a file: name the directory that holds config.json and the weights")
    if source.startswith(("/", ".", "~")) or source.count("/") != 1:
        if "://" in source:
            raise UserError(f"model {source!r}: use s3://bucket/prefix, a directory, or a name on the hub")
        siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UserError(f"model directory {source!r} does not exist{nearest(folder.name, siblings)}")
    return _hub_files(source, revision)


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Turn what S3 or a disk says of a checkpoint into a `core.errors.UserError` with the mend."""
    try:
        yield
    except Exception as error:
        if source.startswith("s3://") and is_s3_error(error):
            kind = TransientError if is_transient(error) else UserError
            raise kind(f"model {source!r}: {_s3_words(source, error)}") from error
        if not isinstance(error, OSError):
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise UserError(f"model {source!r} cannot be read: {where}{error.strerror or error}") from error


def _s3_words(source: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such bucket or prefix"
    bucket = source.removeprefix("s3://").partition("/")[0]
    return explanation(error, bucket, "cannot read it", needs="read and list")


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
        # A directory of the hub's cache holds links, whose type fsspec does not say; one that leads nowhere is a file to vLLM, too.
        if entry["type"] == "file" or (entry.get("islink") and not filesystem.isdir(entry["name"])):
            name = entry["name"].rsplit("/", 1)[-1]
            names[name] = int(entry["size"])
            if said := entry.get("ETag") or (entry.get("lfs") or {}).get("sha256") or entry.get("blob_id"):
                ids[name] = str(said).strip('"')
    return Files(source, revision, names, ids, filesystem, root)
