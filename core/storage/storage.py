"""The interface of a storage of whole objects: a directory (`core.storage.local`) or a prefix on S3 (`core.storage.s3`).

Objects appear whole or not at all, and `Storage.put_new` lets exactly one writer create a name. Whatever the filesystem
or the network raises comes out as `core.errors.StoreError` with one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol
from urllib.parse import quote

from core.errors import StoreError

SCRATCH = ".scratch"  # half-written local files and probes; no reader looks here


class Storage(Protocol):
    """Objects under one prefix. Paths are relative to it, with ``/`` between parts. Safe to use from several threads.

    Every method raises `core.errors.StoreError` where it cannot do its work.
    """

    uri: str

    def put_new(self, path: str, data: bytes) -> bool:
        """Create ``path``; never overwrites. Returns whether it holds ``data`` now, by this call or another."""
        ...

    def put_new_parts(self, path: str, parts: Callable[[], Iterable[bytes]]) -> bool:
        """Create ``path`` as `put_new` does, from data that is made while it is written.

        It appears whole or not at all, also where making it raises. ``parts`` is called again where writing starts anew.
        """
        ...

    def put(self, path: str, data: bytes) -> None:
        """Create or replace ``path``."""
        ...

    def read(self, path: str) -> bytes | None:
        """Return the object's bytes, or None where there is none."""
        ...

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Read several objects at once; those that are gone are left out."""
        ...

    def list(self, folder: str) -> list[str]:
        """Return the paths of all objects below ``folder``, sorted."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects; those that are gone are no error."""
        ...

    def age(self, path: str) -> float | None:
        """Return the seconds since ``path`` was written, by the storage's own clock; None where there is none."""
        ...

    def check(self) -> None:
        """Write and delete a probe. Raises `core.errors.StoreError` within 15 s."""
        ...


def within(path: str) -> str:
    """Return a relative path or key. Raises `core.errors.StoreError` for one that would lead out of where it belongs."""
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise StoreError(f"{path!r} leads out of its folder: whoever wrote that name is not to be trusted")
    return path


def path_part(name: str) -> str:
    """Return ``name`` as part of a path: percent-encoded as hive partitions are, so readers give the name back."""
    return quote(name, safe=" ")
