"""A leaderboard, or a part of one, read from a store with all that is said beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.board.select import Selection, find_suite, select, with_facts
from core.board.suites import with_suite
from core.board.text import engine_findings
from core.board.unfinished import Unfinished, unfinished
from core.compare.compare import Comparison, compare, read_values
from core.compare.sides import asked_cells
from core.results import Store


@dataclass(frozen=True)
class Board:
    """A leaderboard compared, and what is to be said of it."""

    store: Store
    compared: Comparison
    partial: list[Unfinished]
    remarks: list[str]
    findings: list[str]
    records: Mapping[
        str, Mapping[str, Any]
    ]  # commit records by fingerprint, of the rows and all that the newest runs ask for
    runs: list[dict[str, Any]]  # the newest of each campaign

    @property
    def lines(self) -> list[str]:
        """What stands under it."""
        return [*map(str, self.partial), *self.remarks]


def read_board(store: Store, campaign: str | None, selection: Selection) -> Board:
    """Read the rows selected, with intervals, letters, sizes and whether their campaign is whole."""
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
    under_way = {each.campaign for each in partial}
    frame = with_facts(compared.board, records)
    frame["partial"] = frame["campaign"].isin(under_way)
    whole = Comparison(frame, compared.pairs)
    return Board(store, whole, partial, remarks, engine_findings(newest), records, newest)
