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
    """Adds up the spans of one score."""

    request: Request
    missing: int
    logprob: float = 0.0
    is_greedy: bool = True
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    truncated: int = 0
    error: str | None = None

    def add(
        self, logprob: float, is_greedy: bool, *, tokens: int, prompt_tokens: int, cached_tokens: int, truncated: int
    ) -> Response | None:
        """Count one span; the response once it was the last."""
        self.logprob += logprob
        self.is_greedy &= is_greedy
        self.tokens += tokens
        self.prompt_tokens += prompt_tokens
        self.cached_tokens += cached_tokens
        self.truncated += truncated
        return self._finish()

    def fail(self, reason: str) -> Response | None:
        """Count one span as failed, and with it the whole score."""
        self.error = reason
        return self._finish()

    def _finish(self) -> Response | None:
        self.missing -= 1
        if self.missing:
            return None
        if self.error is not None:
            return failed(self.request, self.error)
        return Scored(
            id=self.request.id,
            logprob=self.logprob,
            is_greedy=self.is_greedy and isinstance(self.request, Loglikelihood),
            tokens=self.tokens,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            truncated=self.truncated,
        )
