"""What the measurements share: ways that take turns, medians of them as ratios, one table, and rows for RESULTS.md."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

from rich.console import Console

from core.tables import Row, Table, numbers, texts

# Where `report` adds its rows as JSON lines besides printing them; see `perf.__main__`.
ROWS_FILE = "STEELYARD_PERF_ROWS"

T = TypeVar("T")


@dataclass(frozen=True)
class Ratio:
    """Medians of two ways to do one thing. The ratio is above 1 where ours is the better one.

    ``theirs`` is None for a figure that has nothing beside it. ``better`` says which of two figures is.
    """

    what: str
    unit: str
    ours: float
    theirs: float | None = None
    better: Literal["lower", "higher"] = "lower"
    target: str = ""
    runs: int = 1
    note: str = ""

    @property
    def value(self) -> float | None:
        """How many times as good ours is."""
        if not self.theirs or not self.ours:
            return None
        return self.theirs / self.ours if self.better == "lower" else self.ours / self.theirs

    @property
    def cells(self) -> tuple[str, ...]:
        """Texts under `COLUMNS`."""
        ratio = "" if self.value is None else f"{self.value:.2f}×"
        theirs = "" if self.theirs is None else number(self.theirs)
        return self.what, self.unit, number(self.ours), theirs, ratio, self.target, str(self.runs), self.note


COLUMNS = (*texts("what", "unit"), *numbers("ours", "theirs", "ratio", "target", "runs"), *texts(""))


def number(value: float) -> str:
    """Write a figure with three digits that count."""
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def in_turns(ways: Mapping[str, Callable[[], T]], turns: int) -> dict[str, list[T]]:
    """Run every way once a turn, every second turn in reverse, so that a machine that slows down slows all of them."""
    found: dict[str, list[T]] = {name: [] for name in ways}
    for turn in range(turns):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            begun = time.monotonic()
            found[name].append(ways[name]())
            say(f"turn {turn + 1} of {turns}, {name}: {time.monotonic() - begun:.1f} s")
    return found


def seconds_of(work: Callable[[], object]) -> float:
    """Time one call."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def ratio(
    what: str,
    unit: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    better: Literal["lower", "higher"] = "lower",
    target: str = "",
    note: str = "",
) -> Ratio:
    """Compare the medians of two ways."""
    runs = min(len(ours), len(theirs))
    return Ratio(what, unit, statistics.median(ours), statistics.median(theirs), better, target, runs, note)


def figure(what: str, unit: str, ours: Sequence[float], *, target: str = "", note: str = "") -> Ratio:
    """State a median of ours that has nothing beside it."""
    return Ratio(what, unit, statistics.median(ours), target=target, runs=len(ours), note=note)


def run_logged(command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    """Run a command with all it says in ``log``. Raises `RuntimeError` with the end of that where it fails."""
    with log.open("wb") as file:
        done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise RuntimeError(f"{' '.join(command)} ended with exit status {done.returncode}:\n{end}")


def say(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(text, file=sys.stderr, flush=True)


def table(title: str, rows: Iterable[Ratio]) -> Table:
    """Return the table that people read, and RESULTS.md has."""
    return Table(title, COLUMNS, [Row(row.cells) for row in rows])


def show(title: str, rows: Iterable[Ratio]) -> None:
    """Print the table, and the same for RESULTS.md."""
    found = table(title, rows)
    Console(width=160).print(found)
    print(found.markdown())


def load() -> str:
    """Say how busy the machine is: what others do on it shows in every figure."""
    one, five, _ = os.getloadavg()
    return f"load average {one:.1f} (1 min), {five:.1f} (5 min) on {os.cpu_count()} cores"


def report(title: str, rows: Sequence[Ratio], begun: float, load_before: str) -> None:
    """Print table, Markdown and the state of the machine; hand the rows on where the summary asks for them."""
    show(title, rows)
    print(f"in {time.monotonic() - begun:.0f} s; before: {load_before}; after: {load()}", flush=True)
    if path := os.environ.get(ROWS_FILE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(asdict(row))}\n" for row in rows)


def read_rows(path: Path) -> list[Ratio]:
    """Read what `report` handed on."""
    return [Ratio(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
