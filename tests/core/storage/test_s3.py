"""On S3: files that are made while they are written, and a server that is busy or slow."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.errors import StoreUnreachableError
from core.storage.s3 import S3Storage
from deployments.local_s3 import S3Server
from tests.s3_proxy import Door, door_to

pytestmark = pytest.mark.s3

LARGE = random.Random(0).randbytes(101 << 20)  # s3fs alone would send it in parts


def parts_of(data: bytes) -> Iterator[bytes]:
    return (data[start : start + 1_000_000] for start in range(0, len(data), 1_000_000))


class TestMadeWhileWritten:
    def test_what_is_large_is_created_once(self, s3_root: str) -> None:
        storage = S3Storage(s3_root)
        made = []

        def make() -> Iterator[bytes]:
            made.append(True)
            return parts_of(LARGE)

        assert storage.put_new_parts("a/large", make)
        assert made == [True]
        assert storage.read("a/large") == LARGE
        assert storage.put_new_parts("a/large", lambda: parts_of(LARGE))  # a try of ours that landed unheard
        assert not storage.put_new_parts("a/large", lambda: parts_of(LARGE[::-1]))
        assert storage.read("a/large") == LARGE

    def test_what_is_small_is_created_once(self, s3_root: str) -> None:
        storage = S3Storage(s3_root)
        assert storage.put_new_parts("a/small", lambda: [b"a", b"b"])
        assert not storage.put_new_parts("a/small", lambda: [b"a", b"c"])
        assert storage.read("a/small") == b"ab"

    def test_what_is_not_made_to_its_end_never_appears(self, s3_root: str) -> None:
        storage = S3Storage(s3_root)

        def breaks() -> Iterator[bytes]:
            yield from parts_of(LARGE)
            raise KeyError("in the middle")

        with pytest.raises(KeyError, match="in the middle"):
            storage.put_new_parts("a/large", breaks)
        assert storage.list("a") == []

    def test_of_racing_writers_one_wins(self, s3_root: str) -> None:
        storage = S3Storage(s3_root)
        contents = [bytes([number]) + LARGE for number in range(3)]
        with ThreadPoolExecutor(3) as pool:
            won = list(pool.map(lambda data: storage.put_new_parts("a/large", lambda: parts_of(data)), contents))
        assert sum(won) == 1
        assert storage.read("a/large") == contents[won.index(True)]


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
