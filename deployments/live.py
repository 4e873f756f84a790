"""The terminal while a campaign runs: one live display of every benchmark under way, or plain lines where there is no terminal."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from core.monitor.progress import Progress as Cell

LINE_SECONDS = 10.0

log = logging.getLogger("steelyard")


@contextmanager
def shown(console: Console) -> Iterator[None]:
    """Show the progress of this process's campaign on ``console`` for the length of the block."""
    from core.monitor.progress import listening

    if console.is_terminal:
        with Bars(console) as bars, listening(bars):
            yield
    else:
        with listening(Lines()):
            yield


class Bars:
    """A bar a benchmark, gone when it ends; what is logged to the console appears above."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            console=console,
        )
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, cell: Cell) -> None:
        """Show how far ``cell`` is."""
        key = (cell.model, cell.benchmark)
        with self._lock:
            if cell.ended:
                if key in self._ids:
                    self._bars.remove_task(self._ids.pop(key))
                return
            if key not in self._ids:
                self._ids[key] = self._bars.add_task(f"{cell.model} · {cell.benchmark}", total=cell.docs, told="")
            self._bars.update(self._ids[key], completed=cell.done, told=str(cell))


class Lines:
    """A line a benchmark now and then."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def __call__(self, cell: Cell) -> None:
        """Log how far ``cell`` is, if that was not said lately."""
        key, now = (cell.model, cell.benchmark), time.monotonic()
        with self._lock:
            due = now - self._told.setdefault(key, now) >= LINE_SECONDS and not cell.ended
            if due:
                self._told[key] = now
        if due:
            log.info("%s · %s: %s", cell.model, cell.benchmark, cell)
