"""The spool before a real S3 server that is killed and started again."""

from __future__ import annotations

import json
import logging
import os
import secrets
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import StoreError, UserError
from core.results import Store, open_store
from core.storage.s3 import S3Storage
from core.store.spool import NOTE, Spool, SpoolPlan, left_behind, spool_root, upload
from deployments.local_s3 import S3Server, local_s3
from tests.core.store_parts import METADATA, make_cell, make_responses, make_scoring
from tests.s3_outage import Outage, outages

pytestmark = pytest.mark.s3

CELL = "a" * 64
SECONDS = 60


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Outage]]:
    """A server of this module's own."""
    with local_s3(tmp_path_factory.mktemp("s3")) as server, outages(server) as outage:
        server.create_bucket("evals")
        yield server, outage


@pytest.fixture
def outage(killable: tuple[S3Server, Outage], monkeypatch: pytest.MonkeyPatch) -> Iterator[Outage]:
    """Outages of the server that the AWS variables reach; it is up before and after."""
    server, outage = killable
    for key in [key for key in os.environ if key.startswith("AWS_")]:
        monkeypatch.delenv(key)
    for key, value in server.env.items():
        monkeypatch.setenv(key, value)
    yield outage
    if outage.is_down:
        outage.end()


@pytest.fixture
def store(outage: Outage) -> Store:
    return open_store(f"s3://evals/{secrets.token_hex(8)}")


@pytest.fixture
def spool(store: Store, tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    made: list[Spool] = []

    def make(limit: float = 1e9, patience: float = SECONDS) -> Spool:
        plan = SpoolPlan(tmp_path / "spools", limit, patience)
        made.append(Spool(S3Storage(store.uri), plan, {"model": "m"}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def write(store: Store, spool: Spool, fingerprint: str = CELL) -> None:
    with store.writer(fingerprint, rows=2, sink=spool) as writer:
        for response in make_responses():
            writer.add(response)


WANTED = {response.id: response for response in make_responses()}


def test_answers_of_an_outage_are_in_the_store_after_it_and_none_is_left_here(
    outage: Outage, store: Store, spool: Callable[..., Spool]
) -> None:
    ours = spool()
    outage.begin()
    began = time.monotonic()
    write(store, ours)
    assert time.monotonic() - began < SECONDS / 2
    outage.end()
    ours.drain()
    assert store.responses(CELL) == WANTED
    assert ours.close() is None
    assert not ours.folder.exists()


def test_a_store_that_answers_is_written_straight(store: Store, spool: Callable[..., Spool]) -> None:
    ours = spool()
    write(store, ours)
    assert store.responses(CELL) == WANTED
    assert not ours.folder.exists()


def test_a_full_spool_has_the_writer_wait_for_the_store(
    outage: Outage, store: Store, spool: Callable[..., Spool], caplog: pytest.LogCaptureFixture
) -> None:
    ours = spool(limit=10.0)
    outage.begin()
    with caplog.at_level(logging.INFO, "steelyard"):
        writing = threading.Thread(target=write, args=(store, ours))
        writing.start()
        writing.join(8.0)
        assert writing.is_alive()
        outage.end()
        writing.join(SECONDS)
    assert not writing.is_alive()
    assert "takes no more, generation waits: it is full (policy.spool_gb" in caplog.text
    assert store.responses(CELL) == WANTED


def test_a_store_that_stays_away_ends_the_wait_and_what_is_left_can_be_uploaded(
    outage: Outage, store: Store, spool: Callable[..., Spool]
) -> None:
    ours = spool(patience=1.0)
    outage.begin()
    write(store, ours)
    with pytest.raises(StoreError, match=r"waited \d+ s for the results store .*does not answer") as caught:
        ours.drain()
    assert "\n" not in str(caught.value)
    folder = ours.close()
    assert folder is not None
    with pytest.raises(StoreError, match="does not answer"):
        upload(Path(folder))
    outage.end()
    assert upload(Path(folder)) > 0
    assert store.responses(CELL) == WANTED
    assert not Path(folder).exists()


def test_a_store_that_refuses_is_not_waited_for_and_nothing_is_lost(
    outage: Outage, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as expired:
        expired.setenv("AWS_SECRET_ACCESS_KEY", "not-any-more-the-right-one")
        ours = Spool(S3Storage(store.uri), SpoolPlan(tmp_path / "spools", 1e9, 600.0), {"model": "m"})
        write(store, ours)
        began = time.monotonic()
        with pytest.raises(StoreError, match="refuses the credentials") as caught:
            ours.drain()
        assert time.monotonic() - began < SECONDS / 2
        assert "not-any-more" not in str(caught.value)
        folder = ours.close()
    assert folder is not None
    upload(Path(folder))
    assert store.responses(CELL) == WANTED


def test_a_spool_that_cannot_be_made_is_one_line(
    outage: Outage, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "spools").write_text("a file")
    ours = Spool(S3Storage(store.uri), SpoolPlan(tmp_path / "spools", 1e9, 1.0), {"model": "m"})
    outage.begin()
    with pytest.raises(
        StoreError, match=r"takes no more: Not a directory: free space there, or name another"
    ) as caught:
        ours.put_new("responses/x", b"x")
    assert "\n" not in str(caught.value)
    assert ours.close() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_is_one_line(
    outage: Outage, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount")
    try:
        ours = Spool(S3Storage(store.uri), SpoolPlan(disk, 1e9, 1.0), {"model": "m"})
        outage.begin()
        with pytest.raises(StoreError, match=r"takes no more: No space left on device: free space there") as caught:
            ours.put_new("responses/x", bytes(1 << 20))
        assert "\n" not in str(caught.value)
        ours.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert caplog.text.count("generation waits: No space left on device") == 1


def test_a_cell_that_is_complete_leaves_nothing_in_the_spool_nor_in_the_store(
    outage: Outage, store: Store, spool: Callable[..., Spool]
) -> None:
    ours = spool()
    outage.begin()
    write(store, ours)
    outage.end()
    store.commit(make_cell(), make_scoring(), METADATA)
    ours.forget(CELL)
    ours.drain()
    store.commit(make_cell(), make_scoring(), METADATA)  # what was uploaded before is swept
    assert store.responses(CELL) == {}
    assert ours.close() is None


def test_who_waits_is_let_go_when_hurried(outage: Outage, store: Store, spool: Callable[..., Spool]) -> None:
    ours = spool(limit=10.0, patience=600.0)
    outage.begin()
    ended: list[BaseException] = []

    def body() -> None:
        try:
            write(store, ours)
        except StoreError as error:
            ended.append(error)

    writing = threading.Thread(target=body)
    writing.start()
    writing.join(4.0)
    ours.hurry()
    writing.join(SECONDS / 2)
    assert not writing.is_alive()
    assert len(ended) == 1


KILLED = """
import sys
from pathlib import Path
from core.results import open_store
from core.store.spool import Spool, SpoolPlan
from core.storage.s3 import S3Storage
from tests.core.store.test_spool import write
store = open_store(sys.argv[1])
write(store, Spool(S3Storage(store.uri), SpoolPlan(Path(sys.argv[2]), 1e9, 60.0), {"model": "m"}))
print("spooled", flush=True)
sys.stdin.read()
"""


def test_the_spool_of_a_killed_process_is_found_and_that_of_a_living_one_is_left_alone(
    outage: Outage, store: Store, tmp_path: Path
) -> None:
    outage.begin()
    command = [sys.executable, "-c", KILLED, store.uri, str(tmp_path / "spools")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "spooled\n"
        assert list(left_behind(tmp_path / "spools", store.uri)) == []
        with pytest.raises(UserError, match=f"in use by process {process.pid}"):
            upload(tmp_path / "spools")
        process.kill()
    (folder,) = left_behind(tmp_path / "spools", store.uri)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(left_behind(tmp_path / "spools", "s3://evals/another")) == []
    outage.end()
    upload(folder)
    assert store.responses(CELL) == WANTED


def test_what_is_no_spool_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no spool: name the folder"):
        upload(tmp_path)
    (tmp_path / NOTE).write_text(json.dumps({"results": 1}))
    with pytest.raises(UserError, match="is no note of a spool"):
        upload(tmp_path)


def test_the_spool_lies_where_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert spool_root(None) == tmp_path / "steelyard" / "spool"
    assert spool_root(str(tmp_path / "mine")) == tmp_path / "mine"
