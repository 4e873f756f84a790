"""Requests in flight: how many at once, and adding up what makes one score."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from core.request import Loglikelihood, Request, Response, Scored
from engines.tokens import failed

PIXELS_IN_FLIGHT = 1 << 28  # preprocessed, a pixel takes some 12 bytes: 3 GB


def pixels(images: Sequence[bytes]) -> int:
    """Count the pixels of PNG files, read from their headers."""
    return sum(int.from_bytes(png[16:20], "big") * int.from_bytes(png[20:24], "big") for png in images)


class Room:
    """Bounds what is in flight by requests and by prompt tokens (or pixels); one request always fits. For a single feeder."""

    def __init__(self, requests: int, tokens: int) -> None:
        self._requests, self._tokens = requests, tokens
        self._most_tokens = tokens
        self._left = asyncio.Event()

    async def enter(self, tokens: int) -> None:
        """Wait until there is room for one more request of ``tokens``."""
        while not self._requests or (tokens > self._tokens and self._tokens < self._most_tokens):
            self._left.clear()
            await self._left.wait()
        self._requests -= 1
        self._tokens -= tokens

    def leave(self, tokens: int) -> None:
        """Give back what ``enter`` took."""
        self._requests += 1
        self._tokens += tokens
        self._left.set()


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
