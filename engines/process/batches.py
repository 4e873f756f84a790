"""Requests in portions that cross from process to process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from core.request import Generate, Request

MOST_REQUESTS = 256
MOST_BYTES = 64 << 20  # of images; an image larger than that travels alone


def batches(requests: Sequence[Request], most_bytes: int = MOST_BYTES) -> Iterator[list[Request]]:
    """Yield all requests in their order, few enough at a time for one message."""
    batch: list[Request] = []
    size = 0
    for request in requests:
        more = sum(map(len, request.images)) if isinstance(request, Generate) else 0
        if batch and (len(batch) == MOST_REQUESTS or size + more > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += more
    if batch:
        yield batch
