"""Start-up: what each phase of a model's life takes, in our lightweight engine and in vLLM by hand.

``python -m perf.startup`` opens, asks once and closes, in turns: ours, and a script with ``vllm.LLM`` of the same engine arguments.
Phases: the process up to vLLM's import, the import, the engine up to ready (within it, from vLLM's log, its weights), the first
answer, the end up to when all memory is free. With ``--compiled`` also vLLM by hand as it comes, which compiles the model.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.request import Generate, Sampling
from engines.engine import EngineConfig
from engines.process.child import Child
from engines.process.lightweight import LightweightEngine, start_process
from perf.by_hand import ByHand
from perf.measure import Ratio, in_turns, load, ratio, report, seconds_of
from perf.workload import checkpoint, config

PHASES = ("process", "import", "engine", "of it: weights", "first answer", "close", "whole")
WEIGHTS = re.compile(r"Loading weights took ([0-9.]+) seconds")
QUESTION = Generate("q/0/0/0", "Question: What is the capital of France?\nAnswer:", Sampling(max_tokens=4))


class TimedEngine(LightweightEngine):
    """The lightweight engine, in a process that times itself."""

    def process(self) -> Child:
        """Start one; none is prewarmed."""
        return start_process(self.device, "perf.startup_process")


def ours(opened: EngineConfig) -> dict[str, float]:
    """Open, ask and close our engine. Returns seconds by phase."""
    begun = time.monotonic()
    engine = TimedEngine(opened)
    try:
        info = engine.open()
        phases: dict[str, float] = dict(info.detail["phases"])
        phases["process"] = info.load_seconds - sum(phases.values())
        phases["of it: weights"] = weights_seconds(Path(info.detail["log"]))
        phases["first answer"] = seconds_of(lambda: list(engine.run([QUESTION])))
        closing = time.monotonic()
    finally:
        engine.close()
    return {**phases, "close": time.monotonic() - closing, "whole": time.monotonic() - begun}


def by_hand(opened: EngineConfig, arguments: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Do the same with ``vllm.LLM``."""
    begun = time.monotonic()
    with ByHand(opened, arguments=arguments) as hand:
        weights = weights_seconds(hand.log)
        answered = seconds_of(lambda: hand.generate([[QUESTION]]))
    hand.log.unlink()
    return {
        **hand.phases,
        "of it: weights": weights,
        "first answer": answered,
        "whole": time.monotonic() - begun,
    }


def weights_seconds(log: Path) -> float:
    """Read from vLLM's log how long its weights took."""
    return sum(float(seconds) for seconds in WEIGHTS.findall(log.read_text(errors="replace")))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=2, help="turns")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--compiled", action="store_true", help="also vLLM's default, which compiles: a minute a turn more"
    )
    asked = parser.parse_args()
    begun, before = time.monotonic(), load()
    opened = config(checkpoint(), asked.dtype)
    ways: dict[str, Callable[[], dict[str, float]]] = {
        "ours": lambda: ours(opened),
        "by hand": lambda: by_hand(opened),
    }
    if asked.compiled:
        ways["by hand, compiled"] = lambda: by_hand(opened, {"enforce_eager": False})
    found = in_turns(ways, asked.runs)
    rows: list[Ratio] = []
    for name in list(ways)[1:]:
        rows += [
            ratio(f"{name}: {phase}", "s", [run[phase] for run in found["ours"]], [run[phase] for run in found[name]])
            for phase in PHASES
        ]
    report(f"Start-up, {asked.dtype}", rows, begun, before)


if __name__ == "__main__":
    main()
