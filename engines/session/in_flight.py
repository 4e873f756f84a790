"""Requests in flight: how many at once, and adding up what makes one score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.request import Loglikelihood, Request, Response, Scored
from engines.session.tokens import failed

PIXELS_IN_FLIGHT = 1 << 28  # preprocessed, a pixel takes some 12 bytes: 3 GB


def pixels(images: Sequence[bytes]) -> int:
    """Return the number of pixels of PNG files, read from their headers."""
    return sum(int.from_bytes(png[16:20], "big") * int.from_bytes(png[20:24], "big") for png in images)


class Room:
    """Bounds what is in flight by requests, by prompt tokens that are scored and by pixels.

    A request larger than one of the latter two comes in once it has that one for itself.
    """

    def __init__(self, requests: int, tokens: int, pixels: int = PIXELS_IN_FLIGHT) -> None:
        self._requests = requests
        self._bounds = (tokens, pixels)
        self._left = [tokens, pixels]

    def fits(self, tokens: int, pixels: int = 0) -> bool:
        """Whether one more request may enter."""
        sizes = zip((tokens, pixels), self._left, self._bounds, strict=True)
        return self._requests > 0 and all(not size or size <= left or left == bound for size, left, bound in sizes)

    def enter(self, tokens: int, pixels: int = 0) -> None:
        """Occupy room for one request, which must fit."""
        self._change(-1, tokens, pixels)

    def leave(self, tokens: int, pixels: int = 0) -> None:
        """Free what ``enter`` occupied."""
        self._change(1, tokens, pixels)

    def _change(self, sign: int, *sizes: int) -> None:
        self._requests += sign
        self._left = [left + sign * size for left, size in zip(self._left, sizes, strict=True)]


@dataclass
class Tally:
    """Adds up the ``missing`` spans of the score that answers ``request``."""

    request: Request
    missing: int
    total: Scored | None = None
    error: str | None = None

    def add(self, span: Scored) -> Response | None:
        """Count one span; returns the response once it was the last."""
        total = self.total or Scored(self.request.id, 0.0, isinstance(self.request, Loglikelihood), 0, 0)
        self.total = Scored(
            id=total.id,
            logprob=total.logprob + span.logprob,
            is_greedy=total.is_greedy and span.is_greedy,
            tokens=total.tokens + span.tokens,
            prompt_tokens=total.prompt_tokens + span.prompt_tokens,
            cached_tokens=total.cached_tokens + span.cached_tokens,
            truncated=total.truncated + span.truncated,
        )
        return self._finish()

    def fail(self, reason: str) -> Response | None:
        """Count one span as failed, and with it the whole score."""
        self.error = reason
        return self._finish()

    def _finish(self) -> Response | None:
        self.missing -= 1
        if self.missing:
            return None
        return self.total if self.error is None else failed(self.request, self.error)
