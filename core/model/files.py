"""The files of a checkpoint, in a directory, on S3 or on the hub: names, sizes and byte ranges."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import HubUnreachableError, UserError, nearest
from core.storage.open import open_filesystem


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
