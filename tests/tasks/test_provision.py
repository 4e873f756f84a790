"""Contexts that block, entered and left on threads."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tasks.provision import Entered


class Slow:
    """A context that takes until ``go`` to enter."""

    def __init__(self) -> None:
        self.entering, self.go = threading.Event(), threading.Event()
        self.left = threading.Event()

    @contextmanager
    def context(self) -> Iterator[str]:
        self.entering.set()
        assert self.go.wait(30)
        try:
            yield "head:6379"
        finally:
            self.left.set()


def test_what_is_entered_is_left_once() -> None:
    slow = Slow()
    slow.go.set()

    async def main() -> str:
        entered = Entered(slow.context())
        address = await entered.enter()
        assert not slow.left.is_set()
        await entered.leave()
        await entered.leave()
        return address

    assert asyncio.run(main()) == "head:6379"
    assert slow.left.is_set()


def test_what_is_left_while_it_is_entered_does_not_stay() -> None:
    slow = Slow()

    async def main() -> None:
        entered = Entered(slow.context())
        entering = asyncio.create_task(entered.enter())
        await asyncio.to_thread(slow.entering.wait, 30)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        await entered.leave()
        slow.go.set()
        assert await asyncio.to_thread(slow.left.wait, 30)

    asyncio.run(main())
