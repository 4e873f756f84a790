"""Files that are made while they are written, on S3."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.storage.s3 import S3Storage

LARGE = random.Random(0).randbytes(101 << 20)  # s3fs alone would send it in parts


def parts_of(data: bytes) -> Iterator[bytes]:
    return (data[start : start + 1_000_000] for start in range(0, len(data), 1_000_000))


@pytest.mark.s3
class TestOnS3:
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
