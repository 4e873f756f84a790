"""Openers of URIs, on S3 or in a directory: as a storage of objects, or as a filesystem of fsspec."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.storage.local import LocalStorage
from core.storage.s3 import S3Storage, s3_filesystem
from core.storage.storage import Storage
from core.strict import check_uri


def open_storage(uri: str) -> Storage:
    """Return the storage behind ``s3://bucket/prefix``, ``file:///directory`` or a local path. Touches nothing yet.

    Raises `core.errors.UserError` for a URI that names no place.
    """
    _check(uri)
    return S3Storage(uri) if uri.startswith("s3://") else LocalStorage(Path(uri.removeprefix("file://")))


def open_filesystem(uri: str, attempts: int = 3) -> tuple[Any, str]:
    """Return fsspec's filesystem for such a URI and the path within it. Touches nothing yet; S3 calls get ``attempts`` tries.

    Raises `core.errors.UserError` for a URI that names no place.
    """
    from fsspec.implementations.local import LocalFileSystem  # 0.1 s

    _check(uri)

    if uri.startswith("s3://"):
        return s3_filesystem(attempts), uri.removeprefix("s3://").rstrip("/")
    return LocalFileSystem(), str(Path(uri.removeprefix("file://")).expanduser().absolute())


def _check(uri: str) -> None:
    if not uri.startswith("s3://"):
        return
    try:
        check_uri(uri, ("s3",), "a directory")
    except ValueError as error:
        raise UserError(f"{uri!r}: {error}") from error


def cache_dir() -> Path:
    """Directory for fetched checkpoints: ``STEELYARD_CACHE``, else ``~/.cache/steelyard``."""
    return Path(os.environ.get("STEELYARD_CACHE", "~/.cache/steelyard")).expanduser()
