"""Campaigns run or scored again from a terminal: checked, then shown while the flow runs, on the configured server or its own."""

from __future__ import annotations

import atexit
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from core.campaign import CampaignSpec
from core.errors import StoreError
from core.monitor.progress import Progress, listening
from core.planning.plan import check_campaign
from core.results import open_store
from core.upkeep.status import cell_lines
from core.visible import one_line
from deployments.console import complain, print_leaderboard, say, terminal
from engines.session.arguments import check_arguments

LINE_SECONDS = 10.0

log = logging.getLogger("steelyard")


def run_campaign(spec: CampaignSpec, only: list[str] | None = None) -> int:
    """Run ``spec``, or ``only`` some of its models, and print its leaderboard. Returns 0, or 1 where a model failed.

    Raises `core.errors.UserError` for bad input, before any engine starts.
    """
    check_spec(spec)
    check_campaign(spec)
    with embedded_server() as server:
        from flows.campaign import CampaignFailedError, campaign

        server.result()
        try:
            with shown(terminal()):
                campaign(spec, only)
        except CampaignFailedError as error:
            try:
                print_leaderboard(open_store(spec.results), spec.name)
            except StoreError as unread:
                complain(f"no leaderboard: {unread}")
            print_failures(error.failures, error.cells)
            return 1
    print_leaderboard(open_store(spec.results), spec.name)
    return 0


def print_failures(failures: Mapping[str, str], cells: Mapping[str, Mapping[str, str]]) -> None:
    """Say on stderr why models failed, a line for each reason; ``cells`` are reasons by benchmark of those of which cells did."""
    for model, reason in failures.items():
        for line in cell_lines(cells.get(model, {})) or [reason]:
            complain(f"model {model!r} failed: {line}")


def rerun_failed(spec: CampaignSpec) -> int:
    """Run what failed in the last run of ``spec`` once more. Returns as `run_campaign`; 0 where nothing had failed."""
    from core.upkeep.recompute import find_failed, reopen

    check_spec(spec)
    plan = check_campaign(spec)
    failed = find_failed(spec)
    if not failed.models:
        complain(f"nothing failed in the last run of {spec.name!r}")
        return 0
    reopen(spec, plan, failed)
    return run_campaign(spec, list(failed.models))


def rescore_campaign(spec: CampaignSpec) -> int:
    """Score the stored answers of ``spec`` again and print the leaderboard. Returns 0, or 1 where cells could not be scored.

    Raises `core.errors.UserError` for bad input.
    """
    check_spec(spec)
    check_campaign(spec)
    with embedded_server() as server:
        from flows.failures import CellsFailedError
        from flows.rescore import rescore

        server.result()
        try:
            done = rescore(spec)
        except CellsFailedError as error:
            print_leaderboard(open_store(spec.results), spec.name)
            complain(f"scoring failed: {error}")
            return 1
    print_leaderboard(open_store(spec.results), spec.name)
    counts = f"{len(done.rescored)} scored again, {len(done.unchanged)} unchanged"
    say(f"{counts}, {len(done.missing)} without stored answers", err=True)
    return 0


def check_spec(spec: CampaignSpec) -> None:
    """Raise `core.errors.UserError` for engine arguments that vLLM does not know and schedules that Prefect cannot follow."""
    check_arguments(spec.models)
    if spec.schedules:
        from deployments.schedules import schedules_of  # imports Prefect

        schedules_of(spec)


@contextmanager
def embedded_server() -> Iterator[Future[None]]:
    """Start a temporary server in the background where no other is configured; wait on the future before the first flow.

    Ctrl-C reaches the whole foreground process group, and systemd sends SIGTERM to the whole control group. A server that dies of
    either leaves Prefect's client retrying for minutes while the campaign wants to end, so it is started with both blocked.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefect-server") as pool:
        yield pool.submit(_start_server)


def _start_server() -> None:
    # A blocked signal stays blocked in child processes; this thread has nothing else to do with it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is not None:
        return
    from flows.prefect_server import TemporaryServer

    server = TemporaryServer()
    server.start()
    if (process := server.server_process) is not None:
        atexit.register(process.wait)
        atexit.register(process.kill)  # runs first, and before Prefect's own stop, which would wait for its SIGTERM


@contextmanager
def shown(console: Console) -> Iterator[None]:
    """Show the progress of this process's campaign on ``console`` for the length of the block."""
    if console.is_terminal:
        with CellBars(console) as bars, listening(bars):
            yield
    else:
        with listening(CellLines()):
            yield


class CellBars:
    """A bar for each benchmark, gone when it ends; what is logged to the console appears above."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
        )
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> CellBars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, cell: Progress) -> None:
        """Show how far ``cell`` is."""
        key = (cell.model, cell.benchmark)
        with self._lock:
            if cell.ended:
                if key in self._ids:
                    self._bars.remove_task(self._ids.pop(key))
                return
            if key not in self._ids:
                self._ids[key] = self._bars.add_task(
                    one_line(f"{cell.model} · {cell.benchmark}"), total=cell.docs, text=""
                )
            self._bars.update(self._ids[key], completed=cell.done, text=str(cell))


class CellLines:
    """A line for each benchmark now and then."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def __call__(self, cell: Progress) -> None:
        """Log how far ``cell`` is, if that was not logged lately."""
        key, now = (cell.model, cell.benchmark), time.monotonic()
        with self._lock:
            due = now - self._logged.setdefault(key, now) >= LINE_SECONDS and not cell.ended
            if due:
                self._logged[key] = now
        if due:
            log.info("%s · %s: %s", cell.model, cell.benchmark, cell)
