"""An S3 server that is busy or slow: calls are tried again, and where it stays busy one line says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.errors import StoreUnreachableError
from core.storage.s3 import S3Storage
from deployments.local_s3 import S3Server
from tests.s3_proxy import Door, door_to

pytestmark = pytest.mark.s3


@pytest.fixture
def door(s3_server: S3Server, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    with door_to(s3_server.endpoint) as door:
        monkeypatch.setenv("AWS_ENDPOINT_URL", door.endpoint)
        yield door


def test_every_second_request_refused_loses_nothing_and_writes_nothing_twice(door: Door, s3_root: str) -> None:
    door.is_busy = lambda number: number % 2 == 0
    storage = S3Storage(s3_root)
    storage.check()
    assert storage.put_new("a/1", b"one")
    assert not storage.put_new("a/1", b"another")
    storage.put("a/2", b"two")
    assert storage.list("a") == ["a/1", "a/2"]
    assert storage.read_many(["a/1", "a/2", "a/3"]) == {"a/1": b"one", "a/2": b"two"}
    storage.delete(["a/1"])
    assert storage.list("a") == ["a/2"]
    assert len(door.refused) >= 8


def test_a_server_that_stays_busy_is_named_and_asked_again_later(door: Door, s3_root: str) -> None:
    storage = S3Storage(s3_root)
    storage.check()
    door.is_busy = lambda number: True
    with pytest.raises(StoreUnreachableError, match=r"cannot write a/1: .* is too busy \(SlowDown\)"):
        storage.put_new("a/1", b"one")
    door.is_busy = lambda number: False
    assert storage.put_new("a/1", b"one")


def test_a_slow_server_is_waited_for(door: Door, s3_root: str) -> None:
    door.seconds = 1.0
    storage = S3Storage(s3_root)
    assert storage.put_new("a/1", b"one")
    assert storage.read("a/1") == b"one"
    assert len(door.passed) >= 2
