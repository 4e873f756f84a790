"""Campaigns whose results are not whole: still under way, cut short, or ended without some of their cells. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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
