"""The filesystem edge of the results store: whole objects by name, in a local directory or on S3.

Objects appear whole or not at all, and `Storage.put_new` lets exactly one writer create a name. Whatever the filesystem
or the network raises comes out as `core.errors.StoreError` with one line.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from core.errors import StoreError, StoreUnreachableError

SCRATCH = ".scratch"  # half-written local files and probes; no reader looks here
CALL_SECONDS = 60  # of an S3 call that moves little: a PUT to a server that hangs would never end by itself
TRANSFER_SECONDS = 600  # of one that moves much
LITTLE_BYTES = 32 << 20
PROBE_SECONDS = 10
# S3's limit for one PUT; s3fs would take parts from 100 MiB on, and of racing multipart uploads two may win.
PUT_BYTES = 5 << 30
CONFLICTS = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
BUSY = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "500", "502", "503", "504"})
EXISTS = frozenset({"PreconditionFailed", "412"})


class Storage(Protocol):
    """Objects under one prefix. Paths are relative to it, with ``/`` between parts. Safe to use from several threads.

    Every method raises `core.errors.StoreError` where it cannot do its work.
    """

    uri: str

    def put_new(self, path: str, data: bytes) -> bool:
        """Create ``path``; never overwrites. Returns whether it holds ``data`` now, whoever wrote it."""
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


def open_storage(uri: str) -> Storage:
    """Return the storage behind ``s3://bucket/prefix``, ``file:///directory`` or a local path. Touches nothing yet."""
    if uri.startswith("s3://"):
        return S3Storage(uri)
    return LocalStorage(Path(uri.removeprefix("file://")))


def within(path: str) -> str:
    """Return a relative path or key. Raises `core.errors.StoreError` for one that would lead out of where it belongs."""
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise StoreError(f"{path!r} leads out of its folder: whoever wrote that name is not to be trusted")
    return path


def path_part(name: str) -> str:
    """Return ``name`` as part of a path: percent-encoded as hive partitions are, so readers give the name back."""
    return quote(name, safe=" ")


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
        for left in reversed(range(10)):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                place(target)
            except FileNotFoundError:  # a `delete` took the empty directory away in between
                if not left:
                    raise
            else:
                return

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


class S3Storage:
    """A prefix of an S3 bucket, reached as the standard AWS variables say."""

    def __init__(self, uri: str) -> None:
        self.bucket, _, prefix = uri.removeprefix("s3://").strip("/").partition("/")
        self.root = f"{self.bucket}/{prefix}".rstrip("/")
        self.uri = f"s3://{self.root}"
        self._fs = s3_filesystem(attempts=3)

    def put_new(self, path: str, data: bytes) -> bool:
        """See `Storage.put_new`."""
        return self._put_new(self._fs, path, data, _seconds_for(data))

    def put_new_parts(self, path: str, parts: Callable[[], Iterable[bytes]]) -> bool:
        """See `Storage.put_new_parts`. In one piece, see `PUT_BYTES`."""
        return self.put_new(path, b"".join(parts()))

    def put(self, path: str, data: bytes) -> None:
        """See `Storage.put`."""
        with self._explained(f"cannot write {path}"):
            self._fs.pipe_file(self._key(path), data, timeout=_seconds_for(data))

    def read(self, path: str) -> bytes | None:
        """See `Storage.read`."""
        with self._explained(f"cannot read {path}"):
            try:
                return self._fs.cat_file(self._key(path), timeout=TRANSFER_SECONDS)
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return None

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """See `Storage.read_many`."""
        if not paths:
            return {}
        keys = {self._key(path): path for path in paths}
        with self._explained(f"cannot read {len(paths)} objects such as {paths[0]}"):
            # ``cat`` of one path would return bare bytes; its list form is a dict of bytes or errors by key.
            found: dict[str, Any] = self._fs.cat(list(keys), on_error="return", timeout=TRANSFER_SECONDS)
            for value in found.values():
                if isinstance(value, BaseException) and not isinstance(value, FileNotFoundError):
                    raise value
        return {keys[key]: value for key, value in found.items() if isinstance(value, bytes)}

    def list(self, folder: str) -> list[str]:
        """See `Storage.list`."""
        with self._explained(f"cannot list {folder}"):
            keys = self._fs.find(self._key(folder), timeout=CALL_SECONDS)
        below = f"{self._key(folder).rstrip('/')}/"  # where nothing is, ``find`` may name the folder itself
        return sorted(
            key.removeprefix(f"{self.root}/") for key in keys if key.startswith(below) and not key.endswith("/")
        )

    def delete(self, paths: Iterable[str]) -> None:
        """See `Storage.delete`."""
        if keys := [self._key(path) for path in paths]:
            with self._explained(f"cannot delete {len(keys)} objects"), suppress(FileNotFoundError):
                self._fs.rm(keys, timeout=CALL_SECONDS)

    def age(self, path: str) -> float | None:
        """See `Storage.age`."""
        bucket, _, key = self._key(path).partition("/")
        with self._explained(f"cannot read {path}"):
            try:
                head = self._fs.call_s3("head_object", Bucket=bucket, Key=key, timeout=CALL_SECONDS)
            except FileNotFoundError:
                return None
        answered = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        return (answered - head["LastModified"]).total_seconds()

    def check(self) -> None:
        """See `Storage.check`. Refuses a server that ignores create-only writes: two runs could both win a cell."""
        probe = f"{SCRATCH}/probe-{secrets.token_hex(8)}"
        once = s3_filesystem(attempts=1)
        self._put_new(once, probe, b"first", PROBE_SECONDS)
        if self._put_new(once, probe, b"second", PROBE_SECONDS):
            raise StoreError(
                f"results {self.uri!r}: the server ignores create-only writes (If-None-Match); use one that does not"
            )
        self.delete([probe])

    def _put_new(self, fs: Any, path: str, data: bytes, timeout: float) -> bool:
        with self._explained(f"cannot write {path}"):
            for attempt in range(5):
                try:
                    fs.pipe_file(self._key(path), data, mode="create", timeout=timeout, chunksize=PUT_BYTES // 2)
                except OSError as error:
                    if isinstance(error, FileExistsError) or _code(error) in EXISTS:
                        # An earlier try of ours may have landed unheard: then the content is ours.
                        return self.read(path) == data
                    if _code(error) not in CONFLICTS:
                        raise
                    time.sleep(0.2 * 2**attempt)  # another create of this name is under way
                else:
                    return True
        raise StoreError(f"results {self.uri!r}: cannot write {path}: other writers kept it busy; run again")

    def _key(self, path: str) -> str:
        return f"{self.root}/{within(path)}"

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, _boto_error()) as error:
            kind = StoreUnreachableError if _is_transient(error) else StoreError
            raise kind(f"results {self.uri!r}: {_explanation(error, self.bucket, what)}") from error


def _seconds_for(data: bytes) -> float:
    return CALL_SECONDS if len(data) <= LITTLE_BYTES else TRANSFER_SECONDS


def s3_filesystem(attempts: int) -> Any:
    """Return s3fs as the AWS variables say, trying each call ``attempts`` times."""
    import s3fs

    # botocore reads AWS_DEFAULT_REGION alone; every other SDK reads AWS_REGION.
    region = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION")
    fs = s3fs.S3FileSystem(
        skip_instance_cache=True,  # cached by arguments, which do not show that the AWS variables changed
        use_listings_cache=False,  # or other writers' objects stay unseen
        client_kwargs={"region_name": region} if region else {},
        config_kwargs={
            "connect_timeout": 3,
            "read_timeout": 20,
            "retries": {"max_attempts": attempts, "mode": "standard"},
        },
    )
    fs.retries = min(attempts, 2)  # s3fs's own, around botocore's
    return fs


def _boto_error() -> type[Exception]:
    from botocore.exceptions import BotoCoreError

    return BotoCoreError


def _code(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _is_transient(error: BaseException) -> bool:
    from botocore import exceptions as boto

    silent = isinstance(error, boto.ConnectionError | boto.HTTPClientError | TimeoutError)
    return silent or _code(error) in BUSY


def _explanation(error: BaseException, bucket: str, what: str) -> str:
    from botocore import exceptions as boto

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    code = _code(error)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return "no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError | TimeoutError):
        return f"{endpoint} does not answer ({type(error).__name__}): check AWS_ENDPOINT_URL and that the server runs"
    if code in BUSY:
        return f"{what}: {endpoint} is too busy ({code}): run fewer campaigns at once, or wait and run again"
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"):
        return f"{endpoint} refuses the credentials ({code}): check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, PermissionError):
        rights = f"they need to read, list, write and delete in {bucket!r}"
        return f"{what}: not allowed ({code or 'forbidden'}): check the AWS keys; {rights}"
    if code == "NoSuchBucket" or isinstance(error, FileNotFoundError):
        return f"bucket {bucket!r} does not exist at {endpoint}: create it or correct the URI"
    return f"{what}: {' '.join(str(error).split()) or type(error).__name__}"
