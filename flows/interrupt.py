"""Doing what people ask of a flow run in the Prefect UI while it runs here: cancel, pause, resume."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.context import FlowRunContext
from prefect.states import Cancelled, State

from core.log import log
from engines.control import CANCELLED, Control

POLL_SECONDS = 4.0  # the server announces no change
# Blocking steps (engine loads, response streams) hold a thread each; asyncio's own default would starve a mixed campaign.
THREADS = 256

T = TypeVar("T")


async def run_cancellable(main: Callable[[Control], Coroutine[Any, Any, None]], label: str) -> State | None:
    """Run ``main(control)`` within the current flow run. Returns `prefect.states.Cancelled` where the run was cancelled, else None.

    A cancelled run, and one whose campaign is cancelled, has ``main`` cancelled, and its ``finally`` blocks awaited. One that is
    paused turns ``control`` off until it is resumed.
    """
    control = Control()
    with cancelled_by_sigterm():
        working = asyncio.ensure_future(main(control))
        watching = asyncio.ensure_future(_watch(control, label))
        try:
            await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
                # Asked a moment too late: the server then takes no other end than this.
                return Cancelled(message="cancelled, but complete") if await asyncio.to_thread(is_cancelling) else None
        except asyncio.CancelledError:
            if not await asyncio.to_thread(is_cancelling):
                raise
        finally:
            control.cancel()
            for task in (watching, working):
                task.cancel()
            await asyncio.wait([watching, working])
    log.info(f"{label}: cancelled; what is answered is stored")
    return Cancelled(message=CANCELLED)


@contextmanager
def cancelled_by_sigterm() -> Iterator[None]:
    """Have SIGTERM cancel the current task, where the loop runs in the main thread.

    Prefect's own handler would raise inside any coroutine that happens to run.
    """
    task = asyncio.current_task()
    if task is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


async def _watch(control: Control, label: str) -> None:
    """Return once this run or its campaign's is cancelled."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        await asyncio.Event().wait()
        return
    async with get_client() as client:
        runs = await _with_parent(client, context.flow_run.id, context.flow_run.parent_task_run_id)
        paused = False
        while True:
            try:
                states = [(await client.read_flow_run(run)).state for run in runs]
            except Exception as error:  # whatever Prefect's client raises; the server may be back in a moment
                log.warning(f"{label}: the Prefect server does not say whether to go on: {error}")
                states = []
            if any(state and (state.is_cancelling() or state.is_cancelled()) for state in states):
                return
            if states and paused != (paused := any(state and state.is_paused() for state in states)):
                log.info(f"{label}: {'paused' if paused else 'resumed'}")
                (control.pause if paused else control.resume)()
            await asyncio.sleep(POLL_SECONDS)


def is_cancelling() -> bool:
    """Return whether the current flow run is to be cancelled."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return False
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(context.flow_run.id).state
    return state is not None and state.is_cancelling()


async def _with_parent(client: PrefectClient, run: UUID, parent_task_run: UUID | None) -> list[UUID]:
    if parent_task_run is None:
        return [run]
    parent = (await client.read_task_run(parent_task_run)).flow_run_id
    return [run] if parent is None else [run, parent]


def run_interruptible(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main()`` to its end on an event loop in a thread of its own.

    Signals reach the calling thread, which cancels ``main`` and waits for its ``finally`` blocks before the signal's exception goes
    on. On a loop in the main thread the exception would be raised inside any coroutine that happened to run.
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
