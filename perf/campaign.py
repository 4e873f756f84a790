"""A whole campaign, three models by four benchmarks: ours as a user runs it, against lm-evaluation-harness as its users run it.

``python -m perf.campaign`` times ``steelyard run CAMPAIGN.YAML`` from start to exit, into an empty store, and ``lm_eval run`` model
by model, in turns, on the same docs: MMLU letters and texts (five shots each), GSM8K and a BIG-Bench Hard task. The models are
SmolLM2-135M-Instruct and copies of it with a little noise on their weights. The harness's vllm backend is what users with GPUs
take; `perf.lm_eval_cli` says how it starts on a CPU build. ``--backend hf`` takes its Hugging Face backend. Answers are compared
doc by doc; in float32 they should be the same.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from core.benchmark.find import bundled
from core.results import open_store
from engines.process.engine import child_environment
from perf.lm_eval_cli import Answer, Answers, Harness, choice_of
from perf.measure import Ratio, in_turns, load, ratio, report, run_logged, say
from perf.workload import CHOICES, WINDOW, checkpoint, mixed_benchmarks

NOISE = 0.01  # of each weight matrix's standard deviation


@dataclass(frozen=True)
class Ran:
    """What one way of evaluating every model took, and what the models answered, by model."""

    seconds: float
    answers: dict[str, Answers]


def noisy_copies(model: Path, seeds: Iterable[int], folder: Path) -> list[Path]:
    """Write checkpoints that differ from ``model`` as checkpoints of one run do: other weights, all else the same."""
    import torch
    from safetensors.torch import load_file, save_file

    copies = []
    for number in seeds:
        copy = folder / f"{model.name}-{number}"
        shutil.copytree(model, copy)
        torch.manual_seed(number)
        weights = load_file(copy / "model.safetensors")
        for name, weight in weights.items():
            if weight.ndim > 1:
                noise = torch.randn(weight.shape) * weight.float().std() * NOISE
                weights[name] = (weight.float() + noise).to(weight.dtype)
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
        copies.append(copy)
    return copies


@dataclass(frozen=True)
class Campaign:
    """The campaign to run; each run has a results store of its own below ``folder``."""

    models: Sequence[Path]
    benchmarks: Mapping[str, int]  # docs of each
    dtype: str
    gpus: int
    folder: Path

    def run(self) -> Ran:
        """Run it with the command line. Raises `RuntimeError` where it fails."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        spec = {
            "name": "perf",
            "models": [
                {"model": str(model), "dtype": self.dtype, "max_model_len": WINDOW, "engine": "lightweight"}
                for model in self.models
            ],
            "benchmarks": [{"name": name, "limit": docs} for name, docs in self.benchmarks.items()],
            "fleet": {"gpus": self.gpus, "gpu_memory_gb": 4, "device": "cpu"},
            "results": str(folder / "results"),
        }
        path = folder / "campaign.yaml"
        path.write_text(yaml.safe_dump(spec))
        begun = time.monotonic()
        run_logged(
            [sys.executable, "-m", "deployments.cli", "run", str(path)], environment(self.folder), folder / "log"
        )
        seconds = time.monotonic() - begun
        return Ran(seconds, read_store(str(folder / "results")))


def environment(folder: Path) -> dict[str, str]:
    """What ``steelyard run`` is started with: nothing of the Prefect server that somebody may have here."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return {**child_environment(kept), "PREFECT_HOME": str(folder / "prefect"), "HF_HUB_OFFLINE": "1"}


def read_store(results: str) -> dict[str, Answers]:
    """Read the answers of a campaign, by model."""
    found: dict[str, Answers] = {}
    columns = ("task", "doc_id", "choices", "logprobs", "filtered", "texts")
    for row in open_store(results).samples(columns=columns).to_dict("records"):
        logprobs = tuple(map(float, row["logprobs"]))
        answer = (
            Answer(filtered=tuple(sorted(row["filtered"].items())))
            if len(row["texts"])
            else Answer(choice_of(logprobs) if len(row["choices"]) > 1 else None, logprobs)
        )
        found.setdefault(row["model"], {})[row["task"], row["doc_id"]] = answer
    return found


def harness_run(harness: Harness, models: Sequence[Path]) -> Ran:
    """Run the harness on one model after another."""
    begun, answers = time.monotonic(), {}
    for model in models:
        answers[model.name] = harness.run(model)
        say(f"lm_eval --model {harness.backend}, {model.name}: {time.monotonic() - begun:.0f} s so far")
    return Ran(time.monotonic() - begun, answers)


def compare_answers(ours: dict[str, Answers], theirs: dict[str, Answers]) -> str:
    """Say how many docs are answered alike, and how far log-probabilities are apart."""
    pairs = [(ours[model][key], answer) for model, answers in theirs.items() for key, answer in answers.items()]
    apart = [
        abs(here - there) for own, other in pairs for here, there in zip(own.logprobs, other.logprobs, strict=True)
    ]
    return (
        f"{sum(own.same(other) for own, other in pairs)} of {len(pairs)} answers alike, max |Δ logprob| of {len(apart)} "
        f"{max(apart, default=0.0):.1e}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.campaign", description=__doc__)
    parser.add_argument("--docs", type=int, default=16, help="docs of each benchmark with choices")
    parser.add_argument("--generated", type=int, default=8, help="docs of each of the others")
    parser.add_argument("--models", type=int, default=3, help="models")
    parser.add_argument("--runs", type=int, default=1, help="turns")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--gpus", type=int, default=[1], nargs="+", help="logical devices of our fleet, one way for each"
    )
    parser.add_argument("--backend", default=["vllm"], nargs="+", choices=["vllm", "hf"], help="of the harness")
    asked = parser.parse_args()
    begun, before = time.monotonic(), load()
    with tempfile.TemporaryDirectory(prefix="steelyard-perf-") as path:
        folder = Path(path)
        model = checkpoint()
        models = [model, *noisy_copies(model, range(1, asked.models), folder)]
        names = mixed_benchmarks()
        sizes = {name: asked.docs if index < CHOICES else asked.generated for index, name in enumerate(names)}
        tasks = {Path(bundled().get(name, name)): docs for name, docs in sizes.items()}
        campaigns = {f"ours, {gpus} at once": Campaign(models, sizes, asked.dtype, gpus, folder) for gpus in asked.gpus}
        harnesses = {
            f"lm_eval --model {name}": Harness(name, asked.dtype, WINDOW, tasks, folder) for name in asked.backend
        }
        found = in_turns(
            {name: way.run for name, way in campaigns.items()}
            | {name: (lambda way=way: harness_run(way, models)) for name, way in harnesses.items()},
            asked.runs,
        )
    rows: list[Ratio] = [
        ratio(
            f"{len(models)} models × {len(names)} benchmarks of {'/'.join(map(str, sizes.values()))} docs: {ours} against {theirs}",
            "s",
            [ran.seconds for ran in found[ours]],
            [ran.seconds for ran in found[theirs]],
            target="≥ 3",
            note=compare_answers(found[ours][0].answers, found[theirs][0].answers),
        )
        for ours in campaigns
        for theirs in harnesses
    ]
    report(f"A whole campaign, {asked.dtype}", rows, begun, before)


if __name__ == "__main__":
    main()
