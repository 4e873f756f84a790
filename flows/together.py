"""Coroutines that run at once, each to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


class Together:
    """An async context manager that waits at its end until all that was begun has ended, then raises the first failure.

    `asyncio.TaskGroup` would cancel the others at the first failure. Cancelled, it cancels them, and waits all the same.
    """

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start one more."""
        self._tasks.append(asyncio.create_task(coroutine))

    async def __aenter__(self) -> Together:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncio.CancelledError):
            for task in self._tasks:
                task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None:
            raise_first(outcomes)


def raise_first(outcomes: Iterable[object]) -> None:
    """Raise the first of ``outcomes`` that is an exception."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
