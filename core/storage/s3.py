"""A results store on S3, by s3fs."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from core.errors import StoreError, StoreKeysError, StoreUnreachableError, UserError
from core.storage.claims import SETTLE_SECONDS, put_once
from core.storage.storage import SCRATCH, within

CALL_SECONDS = 60  # of an S3 call that moves little: a PUT to a server that hangs would never end by itself
TRANSFER_SECONDS = 600  # of one that moves much
LITTLE_BYTES = 32 << 20
PROBE_SECONDS = 10
# S3's limit for one PUT; s3fs would take parts from 100 MiB on, and of racing multipart uploads two may win.
PUT_BYTES = 5 << 30
CONFLICTS = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
BUSY = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "500", "502", "503", "504"})
REFUSED_KEYS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
UNKNOWN = frozenset({"NotImplemented", "501"})  # of servers that know no conditions
EXISTS = frozenset({"PreconditionFailed", "412"})
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # the first that is set holds
PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")

_CREATES_ONCE: dict[tuple[str, str], bool] = {}  # by endpoint and bucket

log = logging.getLogger("steelyard.results")


class S3Storage:
    """A prefix of an S3 bucket, reached by the standard AWS variables."""

    def __init__(self, uri: str) -> None:
        self.bucket, _, prefix = uri.removeprefix("s3://").strip("/").partition("/")
        self.root = f"{self.bucket}/{prefix}".rstrip("/")
        self.uri = f"s3://{self.root}"
        self._fs = s3_filesystem(attempts=3)

    def put_new(self, path: str, data: bytes) -> bool:
        """See `Storage.put_new`."""
        if self._creates_once():
            return self._put_new(self._fs, path, data, _seconds_for(data))
        return put_once(self, path, data)

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

    def written(self, folder: str) -> dict[str, float]:
        """See `core.storage.claims.Claimed.written`."""
        with self._explained(f"cannot list {folder}"):
            found = self._fs.find(self._key(folder), detail=True, timeout=CALL_SECONDS)
        return {
            key.removeprefix(f"{self.root}/"): entry["LastModified"].timestamp()
            for key, entry in found.items()
            if entry.get("type") == "file"
        }

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
        """See `Storage.check`."""
        self._probe(s3_filesystem(attempts=1))

    def _creates_once(self) -> bool:
        """Whether the server obeys ``If-None-Match``; probed once for each bucket."""
        known = _CREATES_ONCE.get((_endpoint(), self.bucket))
        return self._probe(self._fs) if known is None else known

    def _probe(self, fs: Any) -> bool:
        probe = f"{SCRATCH}/probe-{secrets.token_hex(8)}"
        try:
            self._put_new(fs, probe, b"first", PROBE_SECONDS)
            once = not self._put_new(fs, probe, b"second", PROBE_SECONDS)
        except StoreError as error:
            if _code(error.__cause__ or error) not in UNKNOWN:
                raise
            once = False
        if not once and (_endpoint(), self.bucket) not in _CREATES_ONCE:
            log.warning(
                "%s: the server has no create-only writes (If-None-Match), so each commit and lease takes %g s longer",
                self.uri,
                SETTLE_SECONDS,
            )
        _CREATES_ONCE[_endpoint(), self.bucket] = once
        self.delete([probe])
        return once

    def _put_new(self, fs: Any, path: str, data: bytes, timeout: float) -> bool:
        # Another create of this name may be under way.
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, OSError) and _code(error) in CONFLICTS),
            stop=stop_after_attempt(5),
            wait=wait_exponential(multiplier=0.2),
        )
        with self._explained(f"cannot write {path}"):
            try:
                retrying(fs.pipe_file, self._key(path), data, mode="create", timeout=timeout, chunksize=PUT_BYTES // 2)
            except RetryError as error:
                busy = f"results {self.uri!r}: cannot write {path}: other writers kept it busy; run again"
                raise StoreError(busy) from error
            except OSError as error:
                if isinstance(error, FileExistsError) or _code(error) in EXISTS:
                    # An earlier try of ours may have landed unheard: then the content is ours.
                    return self.read(path) == data
                raise
            return True

    def _key(self, path: str) -> str:
        return f"{self.root}/{within(path)}"

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_s3_error(error):
                raise
            raise _kind(error)(f"results {self.uri!r}: {explanation(error, self.bucket, what)}") from error


def _seconds_for(data: bytes) -> float:
    return CALL_SECONDS if len(data) <= LITTLE_BYTES else TRANSFER_SECONDS


def s3_filesystem(attempts: int) -> Any:
    """Return s3fs, set up by the AWS variables; each call is tried ``attempts`` times.

    Raises `core.errors.UserError` for an endpoint that is no URL.
    """
    import s3fs

    check_endpoint(os.environ)
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


def check_endpoint(environment: Mapping[str, str]) -> None:
    """Raise `core.errors.UserError` for an endpoint without http:// or https://, or that names no server."""
    name = _first_set(ENDPOINTS, environment)
    value = environment[name] if name else ""
    if not value:
        return
    if "://" not in value:
        raise UserError(f"{name} = {value!r}: write http:// or https:// before it")
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port that is no number
        usable = False
    if not usable or any(map(str.isspace, value)):
        raise UserError(f"{name} = {value!r}: use http://host:port or https://host:port")


def _first_set(names: Iterable[str], environment: Mapping[str, str]) -> str | None:
    return next((name for name in names if environment.get(name)), None)


def is_s3_error(error: Exception) -> bool:
    """Whether an error is S3's, or of what it is reached by; botocore has a plain one for a config file's bad endpoint."""
    from botocore.exceptions import BotoCoreError

    return isinstance(error, OSError | BotoCoreError) or (
        isinstance(error, ValueError) and str(error).startswith("Invalid endpoint")
    )


def _code(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def is_transient(error: BaseException) -> bool:
    """Whether S3 does not answer, or is too busy to."""
    from botocore import exceptions as boto

    silent = isinstance(error, boto.ConnectionError | boto.HTTPClientError | TimeoutError)
    return silent or _code(error) in BUSY


def _kind(error: BaseException) -> type[StoreError]:
    from botocore import exceptions as boto

    if is_transient(error):
        return StoreUnreachableError
    keyless = isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.ProfileNotFound)
    return StoreKeysError if keyless or _code(error) in REFUSED_KEYS else StoreError


def _endpoint() -> str:
    name = _first_set(ENDPOINTS, os.environ)
    return os.environ[name] if name else "AWS"


def explanation(error: BaseException, bucket: str, what: str, needs: str = "read, list, write and delete") -> str:
    """Return S3's error on one line, with the mend. ``what`` was tried; ``needs`` are the rights that it takes."""
    from botocore import exceptions as boto

    endpoint = _endpoint()
    code = _code(error)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return "no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, boto.ProfileNotFound) and (name := _first_set(PROFILES, os.environ)):
        return f"{name} = {os.environ[name]!r}: no such profile in the AWS config files: correct it, or unset it"
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError | TimeoutError):
        return f"{endpoint} does not answer ({type(error).__name__}): check AWS_ENDPOINT_URL and that the server runs"
    if code in BUSY:
        return f"{what}: {endpoint} is too busy ({code}): run fewer campaigns at once, or wait and run again"
    if code in REFUSED_KEYS:
        return f"{endpoint} refuses the credentials ({code}): check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, PermissionError):
        rights = f"they need to {needs} in {bucket!r}"
        return f"{what}: not allowed ({code or 'forbidden'}): check the AWS keys; {rights}"
    if code == "NoSuchBucket" or isinstance(error, FileNotFoundError):
        return f"bucket {bucket!r} does not exist at {endpoint}: create it or correct the URI"
    return f"{what}: {' '.join(str(error).split()) or type(error).__name__}"
