"""Running a flow's async part so that Ctrl-C and SIGTERM end it in order."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

# Blocking steps (engine loads, response streams) hold a thread each; asyncio's own default would starve a mixed campaign.
THREADS = 256

T = TypeVar("T")


def run_interruptible(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main()`` to its end on an event loop in a thread of its own.

    Signals reach the calling thread, which cancels ``main`` and waits for its ``finally`` blocks before the signal's exception goes
    on. On a loop in the main thread the exception would be raised inside whichever coroutine happened to run.
    """
    running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T] | None]] = Future()

    async def body() -> T:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="steelyard"))
        running.set_result((loop, asyncio.current_task()))
        return await main()

    def target(context: contextvars.Context) -> T:
        with asyncio.Runner() as runner:
            return runner.run(body(), context=context)

    with ThreadPoolExecutor(1, thread_name_prefix="steelyard-loop") as pool:
        outcome = pool.submit(target, contextvars.copy_context())
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done():
                loop, task = running.result()
                if task is not None:
                    loop.call_soon_threadsafe(task.cancel)
                wait([outcome])
            raise
