"""A leaderboard, or a part of one, read from a store with the lines that stand beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.board.select import Selection, find_suite, select, with_facts, with_suite
from core.board.text import engine_findings
from core.compare.compare import Comparison, compare, read_values
from core.compare.sides import Records, asked_cells
from core.results import Store


@dataclass(frozen=True)
class Board:
    """A leaderboard compared, with the lines that stand beside it."""

    store: Store
    compared: Comparison
    partial: list[Unfinished]
    remarks: list[str]
    findings: list[str]
    records: Records  # of the rows, and of all that the newest runs ask for
    runs: list[dict[str, Any]]  # the newest of each campaign

    @property
    def lines(self) -> list[str]:
        """Lines under the leaderboard."""
        return [*map(str, self.partial), *self.remarks]


def read_board(store: Store, campaign: str | None, selection: Selection) -> Board:
    """Return the rows selected, with intervals, letters, sizes and whether their campaign is whole."""
    board = select(store.leaderboard(campaign), selection)
    runs = store.campaigns(campaign)
    newest = list({run["campaign"]: run for run in runs}.values())
    records = store.commit_records({*board["fingerprint"], *asked_cells(newest)})
    partial = unfinished(newest, records)
    samples = read_values(store, board, campaign)
    remarks: list[str] = []
    if selection.suite is not None:
        samples, board, remarks = with_suite(samples, board, find_suite(selection.suite))
    compared = compare(samples, board)
    frame = with_facts(compared.board, records)
    frame["partial"] = frame["campaign"].isin({each.campaign for each in partial})
    whole = Comparison(frame, compared.pairs)
    return Board(store, whole, partial, remarks, engine_findings(newest), records, newest)


NAMED = 6  # cells that are named one by one


@dataclass(frozen=True)
class Unfinished:
    """The newest run of a campaign: how many of the ``asked`` cells are complete, and which are not (model, benchmark).

    ``ended`` says whether the run is over. While it is not, models may still come that nothing is known of yet.
    """

    campaign: str
    run: str
    ended: bool
    asked: int
    missing: tuple[tuple[str, str], ...]
    failures: Mapping[str, str]

    def __str__(self) -> str:
        done = f"{self.asked - len(self.missing)} of {self.asked} cells are complete"
        names = ", ".join(f"{model} on {benchmark}" for model, benchmark in self.missing[:NAMED])
        more = f" and {len(self.missing) - NAMED} more" if len(self.missing) > NAMED else ""
        failed = "".join(f"; {model} failed: {reason}" for model, reason in self.failures.items())
        state = "ended without some cells" if self.ended else "has not ended (under way, or cut short)"
        return f"{self.campaign}: partial, its run {self.run} {state}; {done}" + (
            f"; not yet {names}{more}{failed}" if names else failed
        )


def unfinished(runs: Iterable[Mapping[str, Any]], complete: Collection[str]) -> list[Unfinished]:
    """Return the campaigns whose newest run (`core.results.Store.campaigns`) is not whole; ``complete`` holds fingerprints."""
    newest = {run["campaign"]: run for run in sorted(runs, key=lambda each: each["run"])}
    found = []
    for campaign, run in newest.items():
        cells = [(m["model"], name, cell) for m in run["models"] for name, cell in m["cells"].items()]
        missing = tuple((model, name) for model, name, cell in cells if cell not in complete)
        ended = "seconds" in run
        if missing or not ended:
            found.append(Unfinished(campaign, run["run"], ended, len(cells), missing, run.get("failures") or {}))
    return found
