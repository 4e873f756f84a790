"""What a second replica brings: SmolLM2 on one logical device and on two, on a machine without a GPU.

``python -m perf.replicas`` loads SmolLM2 on each half of the cores and once on all of them, then has one replica, both, and the
engine on all cores answer the same docs in turns: multiple choice, and short answers to four-shot prompts. Prints seconds of
each way and its ratio to one replica's, medians of interleaved runs. No run finds prompts of an earlier one in a prefix cache.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from core.model.sizing import docs_of
from core.request import Generate, Loglikelihood, Request, Response
from engines.bench.growth import CPU_IN_FLIGHT
from engines.bench.supervisor import Supervisor
from engines.control import Stop
from engines.engine import Engine, EngineInfo
from engines.host.slots import cores_of
from engines.process.lightweight import LightweightEngine
from perf.measure import Ratio, in_turns, load, ratio, report, seconds_of
from perf.workload import checkpoint, config, requests_of, run_at_once

DEVICES = 2


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


def replicas_of(engines: Sequence[Loaded]) -> Supervisor:
    """All of them as one engine, each taking part."""
    engine = Supervisor(engines, in_flight=CPU_IN_FLIGHT)
    engine.open()
    while engine.serving < len(engines):
        threading.Event().wait(0.01)
    return engine


def loaded(model: Path) -> tuple[list[Loaded], Loaded, list[LightweightEngine]]:
    """Load all engines at once: those of one device each, the one on all cores, and all of them to be closed."""
    here = os.sched_getaffinity(0)
    opened = config(model, "auto", gpu_memory_gb=3)
    cores = [cores_of((device,), DEVICES, here) for device in range(DEVICES)]
    engines = [LightweightEngine(replace(opened, cores=each)) for each in (*cores, ())]
    infos: dict[int, EngineInfo] = {}

    def open_one(index: int) -> None:
        infos[index] = engines[index].open()

    threads = [threading.Thread(target=open_one, args=(index,)) for index in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [Loaded(engine, infos[index]) for index, engine in enumerate(engines)]
    return found[:DEVICES], found[DEVICES], engines


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


def compare(
    name: str, requests: Sequence[Request], ways: Mapping[str, Engine], turns: int, numbers: Iterator[int]
) -> list[Ratio]:
    """Have all ways answer, in turns; ratios are to the first."""

    def answering(engine: Engine, asked: Sequence[Request]) -> float:
        return seconds_of(lambda: run_at_once(engine, [unlike(asked, next(numbers))]))

    for engine in ways.values():  # warms up
        answering(engine, requests[: len(requests) // 10])
    found = in_turns({way: partial(answering, engine, requests) for way, engine in ways.items()}, turns)
    first, *others = found.items()
    what = f"{name}, {docs_of(requests)} docs"
    return [ratio(f"{what}: {way} against {first[0]}", "s", seconds, first[1]) for way, seconds in others]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.replicas", description=__doc__)
    parser.add_argument("--docs", type=int, default=200, help="docs of each kind")
    parser.add_argument("--turns", type=int, default=3, help="turns, the ways taking turns")
    asked = parser.parse_args()
    begun, before = time.monotonic(), load()
    replicas, alone, engines = loaded(checkpoint())
    ways: dict[str, Engine] = {
        "one replica": replicas_of(replicas[:1]),
        f"{DEVICES} replicas": replicas_of(replicas),
        "one engine on all cores": alone,
    }
    numbers = count(1)
    rows = [
        row
        for name, benchmark in (("multiple choice", "steelyard_facts"), ("generation", "steelyard_arithmetic"))
        for row in compare(name, requests_of(benchmark, asked.docs), ways, asked.turns, numbers)
    ]
    for engine in engines:
        engine.close()
    report("Replicas", rows, begun, before)


if __name__ == "__main__":
    main()
