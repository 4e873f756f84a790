"""``steelyard worker``: a Prefect process worker of one of our pools, in this process."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from core.errors import UserError, nearest
from deployments.console import ENVIRONMENT, say
from deployments.server import server_client

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.workers.process import ProcessWorker

POOLS = ("campaign", "gpu", "ray")  # as in flows.dispatch, which imports Prefect
FLOWS_AT_ONCE = {"campaign": 10, "ray": 4}
GRACE_SECONDS = 100.0  # engines close within it, and it fits the 120 that our systemd and Kubernetes files give
CTRL_C_SECONDS = 30.0
# A worker that is gone is noticed after three heartbeats; work starts within five seconds, and polling more often makes a server
# on SQLite stumble; 30 is as often as runs can beat.
WORKER_ENVIRONMENT = {
    **{key: value for key, value in ENVIRONMENT.items() if key != "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"},
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
    "PREFECT_WORKER_QUERY_SECONDS": "5",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


def run_worker(pool: str, limit: int | None = None, name: str | None = None) -> None:
    """Serve ``pool`` until SIGTERM or SIGINT, which the runs get too; a second signal kills. At most ``limit`` runs at once.

    The flow processes inherit this environment. Call it before Prefect is imported. Raises `core.errors.UserError` for a
    pool that is not ours, does not exist or is not a process pool, a bad name, and a server that cannot be had.
    """
    check_worker(pool, name)
    for key, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    check_pool(pool)
    asyncio.run(_serve(pool, limit or default_limit(pool), name))


def check_worker(pool: str, name: str | None) -> None:
    """Raise `core.errors.UserError` for a pool that is not ours, or a name that Prefect refuses."""
    if pool not in POOLS:
        raise UserError(f"pool = {pool!r}: use one of {', '.join(POOLS)}{nearest(pool, POOLS)}")
    if name is not None and (not name or "/" in name or "%" in name):
        raise UserError(f"name = {name!r}: a worker's name has no '/' and no '%' and is not empty")


def check_pool(pool: str) -> None:
    """Raise `core.errors.UserError` where the server has no process pool ``pool``."""
    from prefect.exceptions import ObjectNotFound

    with server_client() as client:
        try:
            kind = client.read_work_pool(pool).type
        except ObjectNotFound as error:
            raise UserError(f"work pool {pool!r} does not exist: run steelyard deploy first") from error
    if kind != "process":
        raise UserError(
            f"work pool {pool!r} is of type {kind!r}, not 'process': start its worker with `prefect worker start --pool {pool}`"
        )


def default_limit(pool: str) -> int:
    """Return how many runs go at once when no number is asked for: on ``gpu`` as many as this machine has GPUs."""
    if pool in FLOWS_AT_ONCE:
        return FLOWS_AT_ONCE[pool]
    from core.model.fleet import detect_fleet

    return detect_fleet().gpus


async def _serve(pool: str, limit: int, name: str | None) -> None:
    from prefect.settings import get_current_settings
    from prefect.workers.process import ProcessWorker

    worker = ProcessWorker(
        work_pool_name=pool,
        name=name,
        limit=limit,
        heartbeat_interval_seconds=int(get_current_settings().worker.heartbeat_seconds),
        create_pool_if_not_found=False,
    )
    ending, submit = _signals(), worker.get_and_submit_flow_runs

    async def submit_unless_ending() -> list[FlowRun]:
        return [] if ending.done() else await submit()

    worker.get_and_submit_flow_runs = submit_unless_ending  # type: ignore[method-assign]
    _print(f"worker {worker.name!r} of pool {pool!r}, at most {limit} runs at once")
    serving = asyncio.create_task(worker.start(printer=lambda _: None))
    either: set[asyncio.Future[Any]] = {serving, ending}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        await _end_runs(worker, ending.result())
        serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving
    _print(f"worker {worker.name!r} stopped")


def _signals() -> asyncio.Future[signal.Signals]:
    """Return the first SIGTERM or SIGINT, once it comes; the second kills this process."""
    # Not Prefect's handlers: they need asyncio's own, which is left out where a script's `&` has SIGINT ignored.
    loop = asyncio.get_running_loop()
    ending: asyncio.Future[signal.Signals] = loop.create_future()

    def stop(number: signal.Signals) -> None:
        if ending.done():
            os.kill(os.getpid(), signal.SIGKILL)
        ending.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return ending


async def _end_runs(worker: ProcessWorker, by: signal.Signals) -> None:
    """Send SIGTERM to every run's process and wait until their ends are reported; Prefect's own teardown sends SIGKILL."""
    import psutil

    start, signalled = time.monotonic(), set[int]()
    # Ctrl-C has reached the whole foreground group: a second signal would only disturb the runs' own end.
    patience = CTRL_C_SECONDS if by is signal.SIGINT else 0.0
    while worker.limiter.borrowed_tokens and (waited := time.monotonic() - start) < GRACE_SECONDS:
        for process in psutil.Process().children() if waited >= patience else ():
            if process.pid not in signalled:
                _print(f"ending the run in process {process.pid}")
                signalled.add(process.pid)
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
        await asyncio.sleep(0.2)


def _print(message: str) -> None:
    say(f"steelyard: {message}")
