"""A mixed campaign, night after night: what was planned against what happened, and small and large together against apart.

``python -m perf.mixed`` runs three small models and a tensor-parallel one on the logical devices of this machine, with real vLLM
and a real local Ray cluster. Every night has new checkpoints, as a training run has, in one results store, so that each night's
plan is learnt from the nights before. It prints each night's timeline with its plan, how far each model's time was from what was
expected, and at the end the idle time of the devices, against a night on which the large model runs after the small ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from rich.console import Console

from core.monitor.timeline import Lane, lanes
from core.monitor.timeline_chart import timeline_table
from core.results import Store, open_store
from perf.campaign import environment, noisy_copies
from perf.measure import Ratio, figure, load, ratio, report, run_logged, say
from perf.workload import CHOICES, WINDOW, checkpoint, mixed_benchmarks

SMALL = 3


@dataclass(frozen=True)
class Night:
    """What happened: seconds from the first device held to the last given back, and device-seconds without requests."""

    seconds: float
    idle: float
    lanes: tuple[Lane, ...]


@dataclass(frozen=True)
class Nights:
    """What all of them share."""

    devices: int
    benchmarks: Sequence[dict[str, Any]]
    folder: Path

    @property
    def store(self) -> Store:
        """Where all nights land."""
        return open_store(str(self.folder / "results"))

    def run(self, name: str, models: Sequence[dict[str, Any]]) -> tuple[Lane, ...]:
        """Run one campaign with the command line. Raises `RuntimeError` where it fails."""
        spec = {
            "name": name,
            "models": models,
            "benchmarks": self.benchmarks,
            "fleet": {"gpus": self.devices, "gpu_memory_gb": 3, "device": "cpu"},
            "policy": {"service_idle_seconds": 0, "replicas_max": 1},
            "canary": False,
            "results": str(self.folder / "results"),
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(spec))
        command = [sys.executable, "-m", "deployments.cli", "run", str(path)]
        run_logged(command, environment(self.folder), self.folder / "log")
        return tuple(lanes(self.store.timeline(name)))


def night_of(found: Iterable[Sequence[Lane]], devices: int, tensor_parallel: dict[str, int]) -> Night:
    """Add up campaigns that ran one after another."""
    seconds = idle = 0.0
    every: list[Lane] = []
    for part in found:
        happened = [lane for lane in part if lane.held_seconds]
        held = [span for lane in happened for span in lane.spans if span.phase in ("load", "generate", "idle", "close")]
        took = max(span.ended for span in held) - min(span.started for span in held)
        worked = sum(lane.working_seconds * tensor_parallel[lane.spans[0].model] for lane in happened)
        seconds, idle = seconds + took, idle + devices * took - worked
        every += happened
    return Night(seconds, idle, tuple(every))


def errors(found: Sequence[Lane]) -> dict[str, float]:
    """How far each model's time on its devices was from the planned one, as a share of it; giving them back is not estimated."""
    off = {}
    for lane in found:
        if lane.planned is not None and lane.held_seconds:
            expected = lane.planned[1] - lane.planned[0]
            took = lane.held_seconds - lane.seconds("close")
            off[lane.label] = (took - expected) / took
    return off


def main() -> None:
    """Measure and print."""
    from tests.models import cache_directory, padded_smollm2

    parser = argparse.ArgumentParser(prog="python -m perf.mixed", description=__doc__)
    parser.add_argument("--nights", type=int, default=4)
    parser.add_argument("--devices", type=int, default=3, help="logical devices; two of them for the large model")
    parser.add_argument(
        "--docs", type=int, default=24, help="docs of each benchmark with choices, a third of it of the others"
    )
    asked = parser.parse_args()
    begun, before = time.monotonic(), load()
    names = mixed_benchmarks()
    benchmarks = [
        {"name": name, "limit": asked.docs if index < CHOICES else max(1, asked.docs // 3)}
        for index, name in enumerate(names)
    ]
    cache = cache_directory(Path(".demo") / "models")
    small, large = checkpoint(), padded_smollm2(cache).resolve()
    off: list[dict[str, float]] = []
    together: list[Night] = []
    with tempfile.TemporaryDirectory(prefix="steelyard-perf-") as path:
        nights = Nights(asked.devices, benchmarks, Path(path))

        def models(night: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
            folder = Path(path) / f"night-{night}"
            folder.mkdir()
            own = noisy_copies(small, range(night * SMALL + 1, (night + 1) * SMALL + 1), folder)
            (wide,) = noisy_copies(large, [1000 + night], folder)
            usual = {"dtype": "float32", "max_model_len": WINDOW}
            return (
                [
                    {"model": str(copy), "name": f"small-{number}", "engine": "lightweight", **usual}
                    for number, copy in enumerate(own)
                ],
                {"model": str(wide), "name": "large", "engine": "distributed", "tensor_parallel": 2, **usual},
            )

        width = {"large": 2, **{f"small-{number}": 1 for number in range(SMALL)}}
        for night in range(asked.nights):
            own, wide = models(night)
            found = nights.run("nightly", [*own, wide])
            together.append(night_of([found], asked.devices, width))
            off.append(errors(found))
            Console(width=140).print(timeline_table(f"night {night + 1}", found))
            say(f"night {night + 1}: {together[-1].seconds:.0f} s; off by " + _text(off[-1]))
        own, wide = models(asked.nights)
        apart = night_of([nights.run("small", own), nights.run("large", [wide])], asked.devices, width)
    known = [abs(value) for value in off[-1].values()]
    rows: list[Ratio] = [
        ratio("mixed campaign against small and large apart: time", "s", [together[-1].seconds], [apart.seconds]),
        ratio("  device-seconds without requests", "s", [together[-1].idle], [apart.idle]),
        figure(
            f"estimate of night {asked.nights}, from the {asked.nights - 1} before: median error of a model",
            "%",
            [100 * median(known)],
            target="< 20",
            note=_text(off[-1]),
        ),
    ]
    report("Mixed workloads", rows, begun, before)


def _text(off: dict[str, float]) -> str:
    return ", ".join(f"{model} {value:+.0%}" for model, value in off.items())


if __name__ == "__main__":
    main()
