"""What a second replica brings: SmolLM2 on one logical device and on two, on a machine without a GPU.

``python -m perf.replicas`` loads SmolLM2 on each half of the cores and once on all of them, then has one replica, both, and the
engine on all cores answer the same docs in turns: multiple choice, and short answers to four-shot prompts. Prints docs a second of
each way and its ratio to one replica's, medians of interleaved runs. No run finds prompts of an earlier one in a prefix cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from core.replicas import docs_of
from core.request import Generate, Loglikelihood, Request, Response
from engines.devices import cores_of
from engines.engine import Engine, EngineConfig, EngineInfo
from engines.lightweight import LightweightEngine
from engines.replicas import ReplicatedEngine
from engines.stop import Stop
from tasks.replicas import CPU_IN_FLIGHT

DEVICES = 2
WINDOW = 2048


class Loaded:
    """An engine that is loaded already and stays so, for one way of several."""

    def __init__(self, engine: LightweightEngine, info: EngineInfo) -> None:
        self._engine, self._info = engine, info

    def open(self) -> EngineInfo:
        """Give what its own ``open`` told."""
        return self._info

    def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
        """Run."""
        return self._engine.run(requests, stop)

    def stats(self) -> dict[str, float]:
        """Figures."""
        return self._engine.stats()

    def close(self, *, keep: bool = True) -> None:
        """Keep it loaded."""


def replicas_of(engines: Sequence[Loaded]) -> ReplicatedEngine:
    """All of them as one engine, each taking part."""
    engine = ReplicatedEngine(engines, in_flight=CPU_IN_FLIGHT)
    engine.open()
    while engine.serving < len(engines):
        threading.Event().wait(0.01)
    return engine


def load(model: Path) -> tuple[list[Loaded], Loaded, list[LightweightEngine]]:
    """Load all engines at once: those of one device each, the one on all cores, and all of them to be closed."""
    here = os.sched_getaffinity(0)
    config = EngineConfig(model=str(model), max_model_len=WINDOW, device="cpu", gpu_memory_gb=3)
    cores = [cores_of((device,), DEVICES, here) for device in range(DEVICES)]
    engines = [LightweightEngine(replace(config, cores=each)) for each in (*cores, ())]
    infos: dict[int, EngineInfo] = {}

    def open_one(index: int) -> None:
        infos[index] = engines[index].open()

    threads = [threading.Thread(target=open_one, args=(index,)) for index in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded = [Loaded(engine, infos[index]) for index, engine in enumerate(engines)]
    return loaded[:DEVICES], loaded[DEVICES], engines


def works(docs: int) -> dict[str, list[Request]]:
    """The requests of each kind of work."""
    from core.benchmark import load_benchmark
    from core.campaign import BenchmarkSpec

    specs = {
        "multiple choice": BenchmarkSpec(name="steelyard_facts", limit=docs),
        "generation": BenchmarkSpec(name="steelyard_arithmetic", limit=docs),
    }
    return {name: load_benchmark(spec, chat=None, seed=1234).requests() for name, spec in specs.items()}


def unlike(requests: Sequence[Request], run: int) -> list[Request]:
    """The same requests behind a line that no other run has."""
    line = f"Set {run:04d}.\n\n"
    changed: list[Request] = []
    for request in requests:
        match request:
            case Loglikelihood(context=context):
                changed.append(replace(request, context=line + context))
            case Generate(prompt=prompt):
                changed.append(replace(request, prompt=line + prompt))
    return changed


def seconds_of(engine: Engine, requests: Sequence[Request]) -> float:
    """Answer them all."""
    begun = time.monotonic()
    responses = list(engine.run(requests))
    seconds = time.monotonic() - begun
    faults = [response.error for response in responses if response.error]
    if faults or len({response.id for response in responses}) != len(requests):
        raise RuntimeError(f"{len(responses)} responses to {len(requests)} requests; {faults[:1]}")
    return seconds


def table_of(name: str, docs: int, seconds: Mapping[str, Sequence[float]]) -> Table:
    """One row a way; ratios are to the first."""
    table = Table(title=f"{name}, {docs} docs", title_justify="left")
    for heading in ("way", "runs", "median s", "docs/s", "ratio"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    first = statistics.median(next(iter(seconds.values())))
    for way, values in seconds.items():
        median = statistics.median(values)
        table.add_row(way, str(len(values)), f"{median:.2f}", f"{docs / median:.1f}", f"{first / median:.2f}")
    return table


def main() -> None:
    """Measure and print."""
    from tests.models import cache_directory, smollm2

    parser = argparse.ArgumentParser(prog="python -m perf.replicas", description=__doc__)
    parser.add_argument("--docs", type=int, default=200, help="docs of each kind")
    parser.add_argument("--turns", type=int, default=3, help="turns, the ways taking turns")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        replicas, alone, engines = load(smollm2(cache_directory(Path(folder))))
        ways: dict[str, Engine] = {
            "one replica": replicas_of(replicas[:1]),
            f"{DEVICES} replicas": replicas_of(replicas),
            "one engine on all cores": alone,
        }
        runs = 0
        for name, requests in works(asked.docs).items():
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            for turn in range(asked.turns + 1):
                for way, engine in ways.items():
                    runs += 1
                    # The first turn warms up.
                    part = requests if turn else requests[: len(requests) // 10]
                    took = seconds_of(engine, unlike(part, runs))
                    if turn:
                        seconds[way].append(took)
            Console().print(table_of(name, docs_of(requests), seconds))
        for each in engines:
            each.close()


if __name__ == "__main__":
    begun = time.monotonic()
    main()
    print(f"in {time.monotonic() - begun:.0f} s")
