"""What orchestration costs: a campaign of cells that have nothing to do, embedded and with a Prefect server.

``python -m perf.overhead`` writes a tiny checkpoint, has every cell of 4 models × 5 benchmarks complete in a local store
(with an engine that answers at once), then runs the campaign again and again, so that nothing is left but flows, tasks and
look-ups. Prints seconds from the campaign's start to its end, and per cell, of each way; medians of interleaved runs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from core.tables import Row, Table, numbers, texts

MODELS, BENCHMARKS = 4, 5
TIMED = """
import json, sys, time
from deployments.console import configure
configure()
from core.campaign import load_spec
from deployments.launch import embedded_server
with embedded_server() as server:
    from flows.campaign import campaign
    server.result()
    for _ in range(int(sys.argv[2]) + 1):
        begun = time.monotonic()
        campaign(load_spec(sys.argv[1]))
        print(time.monotonic() - begun, flush=True)
"""


def write_campaign(folder: Path) -> Path:
    """Write the checkpoint and the spec; returns the spec's path."""
    from tests.checkpoints import write_checkpoint

    checkpoint = write_checkpoint(folder / "model")
    spec = {
        "name": "overhead",
        "models": [
            {"model": str(checkpoint), "name": f"m{n}", "max_model_len": 1024 + n, "engine": "lightweight"}
            for n in range(MODELS)
        ],
        "benchmarks": [
            {"name": name, "limit": 1}
            for name in ("steelyard_facts", "steelyard_arithmetic", "steelyard_letters", "steelyard_prose", "humaneval")
        ],
        "fleet": {"gpus": 1, "gpu_memory_gb": 8, "device": "cpu"},
        "dispatch": "embedded",
        "results": str(folder / "results"),
    }
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def complete_cells(spec_path: Path) -> None:
    """Have every cell of the campaign complete, whatever its score."""
    from core.benchmark.prepare import prepare_cell
    from core.campaign import load_spec
    from core.model.fleet import resolve_fleet
    from core.planning.plan import plan_model
    from core.request import Generate, Generated, Request, Response, Scored
    from core.results import open_store

    def answer(request: Request) -> Response:
        if isinstance(request, Generate):
            return Generated(request.id, "", "stop", prompt_tokens=1, completion_tokens=1)
        return Scored(request.id, logprob=-1.0, is_greedy=False, tokens=1, prompt_tokens=1)

    spec = load_spec(spec_path)
    fleet, store = resolve_fleet(spec.fleet), open_store(spec.results)
    for model in spec.models:
        planned = plan_model(spec, model, fleet)
        for benchmark in spec.benchmarks:
            work = prepare_cell(spec, planned, Path(model.model), benchmark)
            responses = {request.id: answer(request) for request in work.benchmark.requests()}
            store.commit(work.cell, work.benchmark.score(responses), {})


def seconds_of(spec: Path, runs: int, environment: dict[str, str]) -> list[float]:
    """Run the campaign ``runs`` times in a process of its own, after one run that warms up."""
    done = subprocess.run(
        [sys.executable, "-c", TIMED, str(spec), str(runs)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return [float(line) for line in done.stdout.split()][1:]


def main() -> None:
    """Measure and print."""
    import os

    from tests.deployments.prefect_server import prefect_server

    parser = argparse.ArgumentParser(prog="python -m perf.overhead", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each way in a turn")
    parser.add_argument("--turns", type=int, default=3, help="turns, the ways taking turns")
    asked = parser.parse_args()
    ways: dict[str, Callable[[], list[float]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        spec = write_campaign(folder)
        complete_cells(spec)
        plain: dict[str, Any] = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        plain |= {"PREFECT_HOME": str(folder / "embedded"), "HF_HUB_OFFLINE": "1"}
        server = stack.enter_context(prefect_server(folder / "server"))
        ways["embedded"] = lambda: seconds_of(spec, asked.runs, plain)
        ways["with a server"] = lambda: seconds_of(spec, asked.runs, {**plain, **server.env})
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked.turns):
            for name, run in ways.items():
                seconds[name] += run()
    rows = []
    for name, values in seconds.items():
        median = statistics.median(values)
        figures = (median, median / MODELS / BENCHMARKS, min(values), max(values))
        rows.append(Row((name, str(len(values)), *(f"{figure:.3f}" for figure in figures))))
    columns = (*texts("way"), *numbers("runs", "median s", "s per cell", "fastest s", "slowest s"))
    title = f"Campaign of {MODELS} models × {BENCHMARKS} benchmarks with nothing to compute"
    Console().print(Table(title, columns, rows))


if __name__ == "__main__":
    begun = time.monotonic()
    main()
    print(f"in {time.monotonic() - begun:.0f} s")
