"""Loading ahead: how long a device stands between two models, with ``policy.load_ahead`` and without.

``python -m perf.ahead`` runs a campaign of three models on one logical device, each way in turns. What stands between two models is
from the last answer of one to when the next one is asked. On a machine without a GPU both engines share the cores, so what loads
takes from what answers, and the whole campaign is hardly sooner over: on a GPU loading is mostly a matter of host and disk.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import yaml

from core.monitor.timeline import Span
from core.results import open_store
from perf.campaign import environment
from perf.measure import in_turns, load, ratio, report, run_logged
from perf.workload import checkpoint

MODELS = 3


def run(folder: Path, docs: int, *, ahead: bool) -> tuple[float, float]:
    """Run the campaign. Returns seconds between models, on average, and from the first model's load to the last one's close."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    spec = {
        "name": "ahead",
        "models": [
            {"model": str(checkpoint()), "name": f"m{n}", "dtype": "float32", "max_model_len": 1024 + n}
            for n in range(MODELS)
        ],
        "benchmarks": [{"name": "steelyard_letters", "limit": docs}, {"name": "steelyard_arithmetic", "limit": docs}],
        "fleet": {"gpus": 1, "gpu_memory_gb": 6, "device": "cpu"},
        "policy": {"load_ahead": ahead},
        "canary": False,
        "results": str(folder / "results"),
    }
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    run_logged([sys.executable, "-m", "deployments.cli", "run", str(path)], environment(folder), folder / "log")
    return seconds_between(open_store(str(folder / "results")).timeline("ahead"))


def seconds_between(spans: list[Span]) -> tuple[float, float]:
    """Average time from a model's last answer to the next one's first request; and from first load to last close."""
    asked = [span for span in spans if span.phase == "generate"]
    names = {span.model for span in asked}
    working = sorted(
        (min(s.started for s in asked if s.model == name), max(s.ended for s in asked if s.model == name))
        for name in names
    )
    between = [max(0.0, after[0] - before[1]) for before, after in pairwise(working)]
    held = [span for span in spans if span.phase in ("load", "close")]
    whole = max(span.ended for span in held) - min(span.started for span in held)
    return sum(between) / len(between), whole


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.ahead", description=__doc__)
    parser.add_argument("--docs", type=int, default=250, help="docs of each benchmark")
    parser.add_argument("--runs", type=int, default=3, help="turns")
    asked = parser.parse_args()
    begun, before = time.monotonic(), load()
    with tempfile.TemporaryDirectory() as folder:
        ways = {name: partial(run, Path(folder), asked.docs, ahead=name == "ahead") for name in ("ahead", "one by one")}
        found = in_turns(ways, asked.runs)
    rows = [
        ratio(what, "s", [run[index] for run in found["ahead"]], [run[index] for run in found["one by one"]])
        for index, what in enumerate(("between two models", "first load to last close"))
    ]
    report(f"Loading ahead, {MODELS} models", rows, begun, before)


if __name__ == "__main__":
    main()
