"""Data in pieces, on its way to S3."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.storage import S3Storage
from core.upload import PART_BYTES, hashed, in_pieces

LARGE = random.Random(0).randbytes(2 * PART_BYTES + 5)


@pytest.mark.parametrize(
    ("parts", "pieces"),
    [
        ([], [b""]),
        ([b"", b""], [b""]),
        ([b"abc"], [b"abc"]),
        ([b"ab", b"cd"], [b"abc", b"d"]),
        ([b"abcdefg", b"", b"h"], [b"abc", b"def", b"gh"]),
        ([b"abc", b"def"], [b"abc", b"def"]),
    ],
)
def test_pieces_are_of_one_size_but_for_the_last(parts: list[bytes], pieces: list[bytes]) -> None:
    assert list(in_pieces(parts, 3)) == pieces


def test_what_passes_is_hashed() -> None:
    digest = hashlib.sha256()
    assert list(hashed([b"a", b"b"], digest)) == [b"a", b"b"]
    assert digest.digest() == hashlib.sha256(b"ab").digest()


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
        bucket, prefix = s3_root.removeprefix("s3://").split("/", 1)
        uploads = storage._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
        assert uploads.get("Uploads", []) == []

    def test_of_racing_writers_one_wins(self, s3_root: str) -> None:
        storage = S3Storage(s3_root)
        contents = [bytes([number]) + LARGE for number in range(3)]
        with ThreadPoolExecutor(3) as pool:
            won = list(pool.map(lambda data: storage.put_new_parts("a/large", lambda: parts_of(data)), contents))
        assert sum(won) == 1
        assert storage.read("a/large") == contents[won.index(True)]
