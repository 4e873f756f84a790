"""A cell to answer: its requests, and its time limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from core.request import Request, Response
from core.sample import Cell, Sample, Scoring
from core.spec.parts import AdaptiveSpec


class Askable(Protocol):
    """A benchmark that a cell answers: requests, and scores from their responses."""

    @property
    def label(self) -> str:
        """Name in results."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that fixes prompts and scores, for the cell's fingerprint."""
        ...

    def requests(self) -> list[Request]:
        """Return every request."""
        ...

    def score(self, responses: Mapping[str, Response]) -> Scoring:
        """Turn responses by request id into samples and scores."""
        ...

    def recall(self, samples: Iterable[Sample]) -> dict[str, Response]:
        """Return the responses that stored samples were made from, by request id; those of docs not answered are missing."""
        ...


@dataclass(frozen=True)
class CellWork:
    """A cell, the benchmark it answers and how long that may take; ``complete`` where the store holds it already.

    ``answered`` says of one that is not complete that the store holds all its answers. ``cluster`` is the doc field that groups
    its docs; with ``adaptive`` fewer docs may do. ``asked`` names what it asks (`core.benchmark.cell.asked_digest`); empty where
    others' answers to the same are not looked for.
    """

    cell: Cell
    benchmark: Askable
    complete: bool
    timeout_seconds: float | None = None
    cluster: str | None = None
    adaptive: AdaptiveSpec | None = None
    asked: str = ""
    answered: bool = False

    @property
    def label(self) -> str:
        """Name of the cell for people."""
        return f"{self.cell.model} · {self.cell.benchmark}"
