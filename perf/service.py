"""The persistent service: four benchmarks at once on one loaded model, against a load for each of them.

``python -m perf.service`` has the distributed engine load SmolLM2 (padded, so that two ranks share it) on a local Ray cluster
with logical GPUs, as `tests.engines.distributed.test_engine` does. One service: opened once, four benchmarks run at once, closed
and kept, then found again as a second campaign would. Four loads: open, one benchmark, close, four times. The engine counts as at
work while it has a request running; it tells that once a second. What is held is held from the first open to the last close; how
much of that is loading depends on how much work there is, so the share since the model was loaded is stated too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.request import Request
from engines.distributed.cluster import ClusterSpec, stop_all
from engines.distributed.engine import DistributedEngine
from engines.engine import EngineConfig
from perf.measure import Ratio, figure, in_turns, load, ratio, report
from perf.workload import config, mixed_benchmarks, requests_of, run_at_once

CLUSTER = ClusterSpec((0, 1), 2, "cpu")
LOOK_SECONDS = 0.1
KEPT_SECONDS = 300.0


@dataclass(frozen=True)
class HeldSeconds:
    """Seconds that devices were held, of them with a model loaded, and with a request running."""

    held: float
    loaded: float
    working: float
    found_again: float = 0.0  # seconds to open a service that is there


class Watch:
    """Adds up the time in which an engine has a request running."""

    def __init__(self) -> None:
        self.working = 0.0

    @contextmanager
    def on(self, engine: DistributedEngine) -> Iterator[None]:
        """Look at ``engine`` for the length of the block."""
        over = threading.Event()

        def look() -> None:
            last = time.monotonic()
            while not over.wait(LOOK_SECONDS):
                now = time.monotonic()
                if engine.stats().get("running", 0):
                    self.working += now - last
                last = now

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def one_service(opened: EngineConfig, benchmarks: Sequence[Sequence[Request]]) -> HeldSeconds:
    """Load once; then find it again, which is not counted as held."""
    begun, watch = time.monotonic(), Watch()
    engine = DistributedEngine(opened, CLUSTER, KEPT_SECONDS)
    engine.open()
    ready = time.monotonic()
    with watch.on(engine):
        run_at_once(engine, benchmarks)
    done = time.monotonic()
    engine.close()
    second = DistributedEngine(opened, CLUSTER, 0.0)
    finding = time.monotonic()
    if not second.open().reused:
        raise RuntimeError("the second campaign did not find the service")
    found = time.monotonic()
    second.close()
    closed = time.monotonic()
    # Its end is that of any service: counted as if it came right after the work.
    return HeldSeconds(done - begun + closed - found, done - ready, watch.working, found - finding)


def four_loads(opened: EngineConfig, benchmarks: Sequence[Sequence[Request]]) -> HeldSeconds:
    """Load for each benchmark anew."""
    begun, watch, loaded = time.monotonic(), Watch(), 0.0
    for benchmark in benchmarks:
        engine = DistributedEngine(opened, CLUSTER, 0.0)
        engine.open()
        ready = time.monotonic()
        with watch.on(engine):
            run_at_once(engine, [benchmark])
        loaded += time.monotonic() - ready
        engine.close()
    return HeldSeconds(time.monotonic() - begun, loaded, watch.working)


def main() -> None:
    """Measure and print."""
    from tests.models import cache_directory, padded_smollm2

    parser = argparse.ArgumentParser(prog="python -m perf.service", description=__doc__)
    parser.add_argument("--docs", type=int, default=48, help="docs of each benchmark")
    parser.add_argument("--runs", type=int, default=1, help="turns")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    asked = parser.parse_args()
    begun, before = time.monotonic(), load()
    model = padded_smollm2(cache_directory(Path(".demo") / "models")).resolve()
    opened = config(model, asked.dtype, tensor_parallel=2, gpu_memory_gb=3)
    names = mixed_benchmarks()
    benchmarks = [requests_of(name, asked.docs) for name in names]
    ways: dict[str, Callable[[], HeldSeconds]] = {
        "one service": lambda: one_service(opened, benchmarks),
        f"{len(names)} loads": lambda: four_loads(opened, benchmarks),
    }
    with tempfile.TemporaryDirectory(prefix="sy-") as runtime:  # short: sockets lie in it
        os.environ["STEELYARD_RUNTIME"] = runtime
        try:
            one, many = in_turns(ways, asked.runs).values()
        finally:
            stop_all()

    def compared(what: str, unit: str, value: Callable[[HeldSeconds], float], **more: Any) -> Ratio:
        return ratio(what, unit, list(map(value, one)), list(map(value, many)), **more)

    what = f"{len(names)} benchmarks of {asked.docs} docs: wall time, one service against a load each"
    rows = [
        compared(what, "s", lambda run: run.held),
        compared(
            "  at work, of the time the model is loaded",
            "%",
            lambda run: 100 * run.working / run.loaded,
            better="higher",
            target="≥ 90",
        ),
        compared(
            "  at work, of all time held, loading and ending included",
            "%",
            lambda run: 100 * run.working / run.held,
            better="higher",
            note="grows with the work: 90 % takes nine times the seconds of load and end",
        ),
        compared("  load and end, all together", "s", lambda run: run.held - run.loaded),
        figure("  a second campaign finds it loaded within", "s", [run.found_again for run in one]),
    ]
    report(f"Persistent service on two ranks, {asked.dtype}", rows, begun, before)


if __name__ == "__main__":
    main()
