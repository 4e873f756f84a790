"""Every name of lm-eval's catalogue through `plan`'s checks, without network: counts by outcome, and what is at fault.

``python -m perf.catalogue`` checks tasks, groups and tags one by one as a campaign of each would be, then asks where the datasets
of those that pass would come from, offline. Fails where a check ends with anything but a message for people.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import traceback
from collections import Counter, defaultdict

from rich.console import Console

from core.benchmark.benchmark import check_benchmark
from core.benchmark.find import entries
from core.benchmark.images import benchmark_asks_images
from core.benchmark.needed import faults as dataset_faults
from core.benchmark.needed import statuses, wanted
from core.campaign import BenchmarkSpec, DatasetsSpec
from core.errors import UserError
from core.tables import Row, Table, numbers, texts

PASSES, CRASHES = "passes", "no message but a traceback"
# Outcome → what its message says; the first that fits.
OUTCOMES = {
    "a package is not installed": re.compile(r"not installed: (pip install [^(]*)"),
    "a generation setting that vLLM lacks": re.compile(r"(generation_kwargs\.\w+ = [^:]*): vLLM"),
    "code runs outside the sandbox": re.compile(r"(outside any sandbox)"),
    "a fault of its YAML": re.compile(r"(.*)"),
}


def outcome_of(name: str) -> tuple[str, str]:
    """Return a benchmark's outcome and what is at fault."""
    spec = BenchmarkSpec(name=name)
    try:
        check_benchmark(spec)
        benchmark_asks_images(name, None)
        wanted(spec)
    except UserError as error:
        first = next(iter(str(error).splitlines()))
        return next((what, match[1].strip()) for what, said in OUTCOMES.items() if (match := said.search(first)))
    except Exception:  # which is what is looked for
        return CRASHES, f"{name}: {traceback.format_exc()}"
    return PASSES, ""


def main() -> int:
    """Check them all. Returns 1 where a check crashed."""
    parser = argparse.ArgumentParser(prog="python -m perf.catalogue", description=__doc__)
    parser.add_argument("--list", action="store_true", help="every name that does not pass, with what is at fault")
    asked = parser.parse_args()
    begun = time.monotonic()
    names = {name: entry.kind for name, entry in sorted(entries().items())}
    read = time.monotonic()
    outcomes = {name: outcome_of(name) for name in names}
    checked = time.monotonic()
    passing = [BenchmarkSpec(name=name) for name, (outcome, _) in outcomes.items() if outcome == PASSES]
    offline = DatasetsSpec(offline=True)
    places = Counter(status.place for status in statuses(passing, offline))
    wrong = [line for line in dataset_faults(passing, offline) if "cannot be had: datasets.offline is set" not in line]
    ended = time.monotonic()
    kinds = ("task", "python", "group", "tag")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    faults: dict[str, Counter[str]] = defaultdict(Counter)
    for name, (outcome, fault) in outcomes.items():
        counts[outcome][names[name]] += 1
        faults[outcome][fault] += 1
    rows = [
        Row((outcome, *(f"{counts[outcome][kind]:,}" for kind in kinds))) for outcome in (PASSES, *OUTCOMES, CRASHES)
    ]
    total = Row(("all", *(f"{sum(each[kind] for each in counts.values()):,}" for kind in kinds)))
    console = Console(width=160)
    columns = (*texts("outcome"), *numbers("tasks", "in Python", "groups", "tags"))
    console.print(Table("The catalogue through plan's checks", columns, [*rows, total]))
    for outcome in (*OUTCOMES, CRASHES):
        for fault, count in faults[outcome].most_common():
            print(f"{outcome}: {count:,} × {fault}")
    if asked.list:
        for name, (outcome, fault) in outcomes.items():
            if outcome != PASSES:
                print(f"{name}: {outcome}: {fault}")
    for line in wrong:
        print(f"a fault of its data: {line}")
    print(
        f"datasets of those that pass, by place: {', '.join(f'{count:,} {place}' for place, count in places.most_common())}"
    )
    print(
        f"{len(names):,} names: {read - begun:.1f} s reading, {checked - read:.1f} s checking, {ended - checked:.1f} s datasets"
    )
    return 1 if counts[CRASHES] else 0


if __name__ == "__main__":
    sys.exit(main())
