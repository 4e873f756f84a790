"""Which scores are lower than in the campaign's run before, by more than their standard errors explain."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SIGMAS = 2.0


@dataclass(frozen=True)
class Drop:
    """One model that does worse on one benchmark than it did. ``sigmas`` counts standard errors of the difference."""

    model: str
    benchmark: str
    metric: str
    before: float
    after: float
    sigmas: float

    def __str__(self) -> str:
        return f"{self.model} on {self.benchmark}: {self.metric} {self.before:.4f} → {self.after:.4f} ({self.sigmas:.1f} σ)"


def drops(
    before: Mapping[str, Any], after: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]
) -> Iterator[Drop]:
    """Compare two runs of a campaign (`core.results.Store.campaigns`) by their cells' commit records.

    The two scores are taken as independent, which overstates the spread where both stem from the same docs: a drop that is
    named is one. Cells without a standard error, and those that both runs share, are not compared.
    """
    cells: dict[str, dict[str, str]] = {}
    for model in before["models"]:
        cells.setdefault(model["model"], {}).update(model["cells"])
    for model in after["models"]:
        for benchmark, fingerprint in model["cells"].items():
            old, new = records.get(cells.get(model["model"], {}).get(benchmark, "")), records.get(fingerprint)
            if old is None or new is None or old["fingerprint"] == fingerprint:
                continue
            drop = _drop(model["model"], benchmark, old["headline"], new["headline"])
            if drop is not None:
                yield drop


def _drop(model: str, benchmark: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Drop | None:
    numbers = (old["value"], new["value"], old["stderr"], new["stderr"])
    if old["metric"] != new["metric"] or any(number is None for number in numbers):
        return None
    worse = (old["value"] - new["value"]) * (1 if new["higher_is_better"] else -1)
    spread = math.hypot(old["stderr"], new["stderr"])
    sigmas = worse / spread if spread else math.copysign(math.inf, worse) if worse else 0.0
    return Drop(model, benchmark, new["metric"], old["value"], new["value"], sigmas) if sigmas > SIGMAS else None
