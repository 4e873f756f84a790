"""How many docs adaptive sampling takes to tell two models apart: ``python -m perf.adaptive``. Made-up answers, no engine.

What is hard for one model is hard for the other, as in real benchmarks. Each line has the median of `RUNS` pairs of models.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from core.compare.adaptive import rounds, standing
from perf.measure import Ratio, load, report

RUNS = 40
DOCS = (1_319, 10_042)  # of GSM8K and of HellaSwag
PAIRS = ((0.7, 0.5, 0.0), (0.65, 0.55, 0.0), (0.62, 0.57, 0.0), (0.6, 0.6, 0.05), (0.6, 0.6, 0.02))
SHARED = 0.7  # part of what a doc's answer depends on that both models share


def pair(dice: np.random.Generator, docs: int, *levels: float) -> list[np.ndarray]:
    """Right (1) and wrong (0) of two models on the same docs."""
    shared = SHARED * dice.uniform(size=docs)
    return [((shared + (1 - SHARED) * dice.uniform(size=docs)) < level).astype(float) for level in levels]


def answered(one: np.ndarray, other: np.ndarray, margin: float) -> int:
    """How many docs the first model answers until it stands above, below or like the other."""
    order = [str(doc) for doc in range(len(one))]
    known = dict(zip(order, map(float, other), strict=True))
    own: dict[str, float] = {}
    for docs in rounds(order):
        own |= {doc: float(one[int(doc)]) for doc in docs}
        if standing("other", own, known, order, margin=margin).verdict != "open":
            break
    return len(own)


def main() -> int:
    """Measure and print."""
    begun, before = time.monotonic(), load()
    dice, rows = np.random.default_rng(0), []
    for docs in DOCS:
        for first, second, margin in PAIRS:
            pairs = [pair(dice, docs, first, second) for _ in range(RUNS)]
            apart = float(np.mean([abs(one.mean() - other.mean()) for one, other in pairs]))
            taken = float(np.median([answered(one, other, margin) for one, other in pairs]))
            what = f"{docs:,} docs, scores {apart:.3f} apart" + (f", margin {margin}" if margin else "")
            rows.append(Ratio(what, "docs", taken, docs, runs=RUNS))
    report("Docs that adaptive sampling asks, and all", rows, begun, before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
