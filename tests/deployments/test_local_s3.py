"""The demo's S3 server: who may do what, and that it ends."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import s3fs

from deployments.local_s3 import S3Keys, S3Server, local_s3

pytestmark = pytest.mark.s3


def client(server: S3Server, keys: S3Keys) -> Any:
    return s3fs.S3FileSystem(
        endpoint_url=server.endpoint,
        key=keys.access_key,
        secret=keys.secret_key,
        skip_instance_cache=True,
        use_listings_cache=False,
    )


def keys_file(pid: int) -> Path:
    (option,) = [arg for arg in psutil.Process(pid).cmdline() if arg.startswith("-s3.config=")]
    return Path(option.partition("=")[2])


def test_a_wrong_secret_is_refused(s3_server: S3Server) -> None:
    with pytest.raises(PermissionError):
        client(s3_server, S3Keys(s3_server.keys.access_key, "wrong")).ls("steelyard-tests")


def test_the_read_only_keys_read_but_do_not_write(s3_server: S3Server) -> None:
    client(s3_server, s3_server.keys).pipe_file("steelyard-tests/read-only/x", b"1")
    reader = client(s3_server, s3_server.read_only)
    assert reader.cat_file("steelyard-tests/read-only/x") == b"1"
    with pytest.raises(PermissionError):
        reader.pipe_file("steelyard-tests/read-only/x", b"2")


def test_a_write_to_a_missing_bucket_makes_none(s3_server: S3Server) -> None:
    with pytest.raises(FileNotFoundError):
        client(s3_server, s3_server.keys).pipe_file("misspelt-bucket/x", b"1")


def test_a_secret_shows_in_no_repr(s3_server: S3Server) -> None:
    assert s3_server.keys.secret_key not in repr(s3_server)


def test_a_bucket_may_be_created_twice_and_outlives_the_server(tmp_path: Path) -> None:
    with local_s3(tmp_path / "data") as server:
        server.create_bucket("kept")
        server.create_bucket("kept")
        client(server, server.keys).pipe_file("kept/x", b"1")
    assert not psutil.pid_exists(server.pid)
    with local_s3(tmp_path / "data") as again:
        assert client(again, again.keys).cat_file("kept/x") == b"1"


def test_keys_lie_in_a_file_only_its_owner_reads(s3_server: S3Server) -> None:
    assert stat.S_IMODE(keys_file(s3_server.pid).stat().st_mode) == 0o600


HOLDER = """
import sys
from deployments.local_s3 import local_s3
with local_s3(sys.argv[1]) as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        left_behind = keys_file(server.pid).parent
        os.kill(parent.pid, signal.SIGKILL)
    server.wait(20)
    assert not server.is_running()
    shutil.rmtree(left_behind)
