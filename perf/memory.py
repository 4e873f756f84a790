"""What a cell of a million requests takes of the process that feeds the engine: peak memory above that of the interpreter.

``python -m perf.memory`` runs `engines.bench.answering.run_cell` as a campaign does, into a local store, with the scripted
engine of the
tests, which answers at once and keeps nothing but ids: what is left is requests, responses and the run path's own. Each run is a
process of its own. With ``--harness N`` also a benchmark of N docs through lm-evaluation-harness's task side, whose instances
live in the same process, up to the committed cell.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from perf.measure import Ratio, load, report, say

MIB = 1 << 20
CHOICES = 4
QUESTION = "How many of the numbers from 1 to {n} leave a remainder of 3 when they are divided by 7, and what do they sum up to? "
YAML = """
task: perf_memory
custom_dataset: !function rows.rows
dataset_kwargs: {{docs: {docs}}}
output_type: generate_until
test_split: test
num_fewshot: 0
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 64, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
ROWS = """
from datasets import Dataset, DatasetDict
def rows(docs, **_):
    from perf.memory import question
    numbers = range(docs)
    return DatasetDict(test=Dataset.from_dict({"question": [*map(question, numbers)], "answer": [*map(str, numbers)]}))
"""


def question(n: int) -> str:
    """Return a prompt of its own for doc ``n``, some 250 characters long."""
    return f"{QUESTION.format(n=n)}{QUESTION.format(n=n + 1)}"


class Questions:
    """A `core.cell_work.Askable` of ``count`` requests that are built when they are asked for, texts included."""

    label = "perf"
    settings: Mapping[str, Any] = {}

    def __init__(self, count: int, kind: str) -> None:
        self._count, self._kind = count, kind

    def requests(self) -> list[Any]:
        """Return generations with a prompt each, or choices that share their question's context."""
        from core.request import Generate, Loglikelihood, Sampling

        if self._kind == "generate":
            sampling = Sampling(max_tokens=64, until=("\n",))
            return [Generate(f"perf/{n}/0/0", question(n), sampling) for n in range(self._count)]
        contexts = (question(n) for n in range(self._count // CHOICES))
        return [
            Loglikelihood(f"perf/{n}/{index}/0", context, f" answer {n} {index}")
            for n, context in enumerate(contexts)
            for index in range(CHOICES)
        ]

    def score(self, responses: Mapping[str, Any]) -> Any:
        """Nothing is scored here."""
        raise NotImplementedError

    def recall(self, samples: Iterable[Any]) -> dict[str, Any]:
        """Nothing is stored here."""
        raise NotImplementedError


def answer(request: Any) -> Any:
    """Answer as a model would, a text of some 100 characters."""
    from core.request import Generate, Generated, Scored

    if isinstance(request, Generate):
        return Generated(request.id, f" {request.prompt[20:120]}", "stop", prompt_tokens=60, completion_tokens=30)
    return Scored(request.id, logprob=-1.5, is_greedy=False, tokens=4, prompt_tokens=60)


def harness_benchmark(docs: int, folder: Path) -> Any:
    """Load a benchmark of ``docs`` docs as campaigns load theirs."""
    from core.benchmark.benchmark import load_benchmark
    from core.campaign import BenchmarkSpec

    (folder / "perf_memory.yaml").write_text(YAML.format(docs=docs))
    (folder / "rows.py").write_text(ROWS)
    return load_benchmark(BenchmarkSpec(name=str(folder / "perf_memory.yaml")), chat=None, seed=1)


def inside(count: int, kind: str) -> dict[str, float]:
    """Run one cell in this process. Returns MiB and seconds of each step."""
    from core.cell_work import CellWork
    from core.results import open_store
    from core.sample import Cell
    from engines.bench.answering import Answering, run_cell
    from engines.control import Control
    from tests.scripted_engine import ScriptedEngine

    found = {"own": psutil.Process().memory_info().rss / MIB}
    begun = time.monotonic()

    def mark(name: str) -> None:
        nonlocal begun
        found[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
        found[f"{name} s"] = time.monotonic() - begun
        begun = time.monotonic()

    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        benchmark = harness_benchmark(count, folder) if kind == "harness" else Questions(count, kind)
        mark("prepare")
        work = CellWork(Cell("0" * 64, "perf", benchmark.label, {}), benchmark, complete=False)
        engine = ScriptedEngine(answer)
        engine.open()
        run = run_cell(Answering(engine, str(folder / "results"), Control()), work, lambda progress: None)
        mark("run")
        if len(run.responses) != count:
            raise RuntimeError(f"{len(run.responses)} of {count} requests were answered")
        if kind == "harness":
            scoring = benchmark.score(run.responses)
            mark("score")
            open_store(str(folder / "results")).commit(work.cell, scoring, {})
            mark("commit")
    return found


def outside(count: int, kind: str) -> dict[str, float]:
    """Run one cell in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "perf.memory", "--inside", kind, "--requests", str(count)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    say(f"{kind}: " + ", ".join(f"{name} {value:,.0f}" for name, value in found.items()))
    return found


def rows_of(count: int, kind: str, runs: int) -> list[Ratio]:
    """Measure one kind of request."""
    found = [outside(count, kind) for _ in range(runs)]

    def median(value: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(value(run) for run in found)

    def above(step: str, target: str = "") -> Ratio:
        return Ratio(
            f"{count:,} {kind} requests, up to {step}",
            "MiB above the interpreter's own",
            median(lambda run: run[step] - run["own"]),
            runs=runs,
            note=f"interpreter {median(lambda run: run['own']):,.0f} MiB, step {median(lambda run: run[f'{step} s']):.0f} s",
            target=target,
        )

    if kind == "harness":
        return [above(step) for step in ("prepare", "run", "score", "commit")]
    return [above("run", target="< 2,048")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.memory", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, help="requests of the cell")
    parser.add_argument(
        "--harness", type=int, default=0, help="docs of a benchmark of lm-evaluation-harness; 0 for none"
    )
    parser.add_argument("--runs", type=int, default=1, help="processes of each kind")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        print(json.dumps(inside(asked.requests, asked.inside)))
        return
    begun, before = time.monotonic(), load()
    rows = [row for kind in ("generate", "loglikelihood") for row in rows_of(asked.requests, kind, asked.runs)]
    if asked.harness:
        rows += rows_of(asked.harness, "harness", asked.runs)
    report("Memory of the process that feeds the engine", rows, begun, before)


if __name__ == "__main__":
    main()
