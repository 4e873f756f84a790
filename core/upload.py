"""One object to S3 in parts while the rest of it is still being made: it appears under a new name, whole, or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

PART_BYTES = 16 << 20  # S3 takes parts from 5 MiB, 10,000 of them
PARTS_IN_FLIGHT = 4
CALL_SECONDS = 60
PART_SECONDS = 600


class Digest(Protocol):
    """What `hashlib` gives."""

    def update(self, data: bytes, /) -> None:
        """Take more data."""
        ...


def in_pieces(parts: Iterable[bytes], size: int = PART_BYTES) -> Iterator[bytes]:
    """Join and cut ``parts`` to pieces of ``size`` bytes, the last one smaller; one empty piece where there is nothing."""
    kept = bytearray()
    empty = True
    for part in parts:
        kept += part
        while len(kept) > size:
            empty = False
            yield bytes(kept[:size])
            del kept[:size]
    if kept or empty:
        yield bytes(kept)


def hashed(pieces: Iterable[bytes], digest: Digest) -> Iterator[bytes]:
    """Pass ``pieces`` on, and their bytes to ``digest``."""
    for piece in pieces:
        digest.update(piece)
        yield piece


def upload_new(fs: Any, key: str, pieces: Iterable[bytes]) -> None:
    """Create ``key`` (bucket/name) through ``fs``, an s3fs filesystem, by a multipart upload that only creates.

    Raises what s3fs raises, or ``pieces``; an upload that was begun is then given up.
    """
    bucket, name, _ = fs.split_path(key)
    names = {"Bucket": bucket, "Key": name}
    upload = fs.call_s3("create_multipart_upload", **names, timeout=CALL_SECONDS)["UploadId"]

    def send(number: int, piece: bytes) -> dict[str, Any]:
        part = {"PartNumber": number, "UploadId": upload, "Body": piece}
        sent = fs.call_s3("upload_part", **names, **part, timeout=PART_SECONDS)
        return {"PartNumber": number, "ETag": sent["ETag"]}

    try:
        with ThreadPoolExecutor(PARTS_IN_FLIGHT, thread_name_prefix="upload") as pool:
            sending: list[Future[dict[str, Any]]] = []
            for number, piece in enumerate(pieces, 1):
                if len(sending) >= PARTS_IN_FLIGHT:
                    sending[-PARTS_IN_FLIGHT].result()
                sending.append(pool.submit(send, number, piece))
            parts = [each.result() for each in sending]
        fs.call_s3(
            "complete_multipart_upload",
            **names,
            UploadId=upload,
            MultipartUpload={"Parts": parts},
            IfNoneMatch="*",
            timeout=PART_SECONDS,
        )
    except BaseException:
        with suppress(Exception):  # what is wrong is on its way
            fs.call_s3("abort_multipart_upload", **names, UploadId=upload, timeout=CALL_SECONDS)
        raise
