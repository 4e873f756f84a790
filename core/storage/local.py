"""A results store in a directory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from core.errors import StoreError
from core.storage.storage import SCRATCH, within


class LocalStorage:
    """A directory. A file is written under a scratch name and linked into place, so no reader sees half of one."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = str(self.root)

    def put_new(self, path: str, data: bytes) -> bool:
        """See `Storage.put_new`."""
        return self.put_new_parts(path, lambda: [data])

    def put_new_parts(self, path: str, parts: Callable[[], Iterable[bytes]]) -> bool:
        """See `Storage.put_new_parts`."""
        with self._explained(f"cannot write {path}"), self._scratch(parts()) as scratch:
            try:
                self._place(path, lambda target: os.link(scratch, target))
            except FileExistsError:
                return self.read(path) == scratch.read_bytes()
            return True

    def put(self, path: str, data: bytes) -> None:
        """See `Storage.put`."""
        with self._explained(f"cannot write {path}"), self._scratch([data]) as scratch:
            self._place(path, scratch.replace)

    def read(self, path: str) -> bytes | None:
        """See `Storage.read`."""
        with self._explained(f"cannot read {path}"):
            try:
                return self._file(path).read_bytes()
            except FileNotFoundError:
                return None

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """See `Storage.read_many`."""
        return {path: data for path in paths if (data := self.read(path)) is not None}

    def list(self, folder: str) -> list[str]:
        """See `Storage.list`."""
        with self._explained(f"cannot list {folder}"):
            return sorted(
                (Path(parent) / name).relative_to(self.root).as_posix()
                for parent, _, names in os.walk(self._file(folder))
                for name in names
            )

    def delete(self, paths: Iterable[str]) -> None:
        """See `Storage.delete`. Directories that this empties go too."""
        for path in paths:
            with self._explained(f"cannot delete {path}"):
                self._file(path).unlink(missing_ok=True)
                if not path.startswith(SCRATCH):
                    with suppress(OSError):  # not empty, or another process was faster
                        self._file(path).parent.rmdir()

    def age(self, path: str) -> float | None:
        """See `Storage.age`. A network file system's clock is not this machine's."""
        with self._explained(f"cannot read {path}"), self._scratch([]) as now:
            try:
                return now.stat().st_mtime - self._file(path).stat().st_mtime
            except FileNotFoundError:
                return None

    def check(self) -> None:
        """See `Storage.check`. Makes the directory where it is missing."""
        probe = f"{SCRATCH}/probe-{secrets.token_hex(8)}"
        self.put_new(probe, b"probe")
        self.delete([probe])

    def _file(self, path: str) -> Path:
        return self.root / within(path)

    def _place(self, path: str, place: Callable[[Path], object]) -> None:
        target = self._file(path)
        # A `delete` may take the empty directory away in between.
        missing = retry_if_exception_type(FileNotFoundError)
        for attempt in Retrying(retry=missing, stop=stop_after_attempt(10), reraise=True):
            with attempt:
                target.parent.mkdir(parents=True, exist_ok=True)
                place(target)

    @contextmanager
    def _scratch(self, parts: Iterable[bytes]) -> Iterator[Path]:
        scratch = self.root / SCRATCH / secrets.token_hex(16)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("xb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            yield scratch
        finally:
            scratch.unlink(missing_ok=True)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"results {self.uri!r}: {what}: {error.strerror or error}") from error
