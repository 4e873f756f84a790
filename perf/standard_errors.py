"""Standard errors of every aggregation of lm-evaluation-harness: its own bootstrap against ours, in seconds.

``python -m perf.standard_errors`` takes made-up docs of each aggregation that the harness registers. Where it bootstraps, its own
function runs on a few resamples in one process, as in a campaign, and the time of all that it draws (100,000; 100 of BLEU, chrF
and TER) is reckoned from those: it would take hours. Of 5,000 texts two have to do, whose number says nothing. Ours runs whole.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import random
import time
import warnings
from collections.abc import Callable
from typing import Any

from rich.console import Console

from core.benchmark.standard_error import TEXT_RESAMPLES, resamples, standard_error
from core.tables import Row, Table, numbers, texts

WORDS = (
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "two",
    "dogs",
    "ran",
    "far",
    "away",
    "from",
    "home",
    "today",
    ".",
)
TEXTS = ("bleu", "chrf", "chrf++", "ter")
LABELS = ("f1", "matthews_corrcoef")
WEIGHTED = ("weighted_perplexity", "bits_per_byte")
SECONDS = 2.0  # for the harness's own, at least one resample
DICE = random.Random(5)


def items_of(name: str, docs: int) -> list[Any]:
    """Make up what the harness keeps of docs for an aggregation."""
    if name in TEXTS:
        return [_texts() for _ in range(docs)]
    if name in LABELS:
        golds = [DICE.randint(0, 1) for _ in range(docs)]
        return [(gold, gold if DICE.random() < 0.7 else 1 - gold) for gold in golds]
    if name in WEIGHTED:
        return [(-DICE.random() * 90, DICE.randint(5, 60)) for _ in range(docs)]
    if name == "brier_score":
        return [(DICE.randint(0, 1), (share := DICE.random(), 1 - share)) for _ in range(docs)]
    return [DICE.gauss(-2.0, 1.0) for _ in range(docs)]


def _texts() -> tuple[str, str]:
    reference = [DICE.choice(WORDS) for _ in range(DICE.randint(8, 30))]
    return " ".join(reference), " ".join(word if DICE.random() < 0.7 else DICE.choice(WORDS) for word in reference)


def of_harness(name: str, aggregation: Callable[..., Any], items: list[Any]) -> tuple[float, float]:
    """Return the harness's standard error by some resamples, and the seconds that all would take; NaN where it has none."""
    from lm_eval.api.metrics import stderr_for_metric

    function = stderr_for_metric(metric=aggregation, bootstrap_iters=1)
    if function is None:
        return math.nan, math.nan
    if "bootstrap_iters" not in function.__code__.co_freevars:
        begun = time.perf_counter()
        return float(function(items)), time.perf_counter() - begun
    begun = time.perf_counter()
    aggregation(items)
    most = TEXT_RESAMPLES if name in TEXTS else resamples()
    some = max(2, min(most, 1000, int(SECONDS / (time.perf_counter() - begun))))
    begun = time.perf_counter()
    found = stderr_for_metric(metric=aggregation, bootstrap_iters=some)(items)
    return float(found), (time.perf_counter() - begun) / some * most


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.standard_errors", description=__doc__)
    parser.add_argument("--docs", type=int, nargs="+", default=[8, 5000])
    asked = parser.parse_args()
    from lm_eval.api import metrics
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    warnings.simplefilter("ignore")
    os.environ["DISABLE_MULTIPROC"] = "1"
    metrics.f1_score([(1, 1), (0, 1)])  # imports scikit-learn
    standard_error("f1", metrics.f1_score, [(1, 1), (0, 1)], 2 / 3)
    rows = []
    for name, aggregation in AGGREGATION_REGISTRY.items():
        for docs in asked.docs:
            items = items_of(name, docs)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                theirs, before = of_harness(name, aggregation, items)
            begun = time.perf_counter()
            ours = standard_error(name, aggregation, items, aggregation(items))
            after = time.perf_counter() - begun
            cells = (f"{theirs:.5g}", "none" if ours is None else f"{ours:.5g}", f"{before:,.3f}", f"{after:,.3f}")
            rows.append(Row((name, f"{docs:,}", *(cell.replace("nan", "none") for cell in cells))))
    columns = (
        *texts("aggregation"),
        *numbers("docs", "theirs, some draws", "ours", "theirs, all draws (s)", "ours (s)"),
    )
    Console(width=140).print(Table("Standard errors", columns, rows))


if __name__ == "__main__":
    main()
