"""What is measured on: the demo's checkpoint, and benchmarks over real data where their files are there."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.benchmark.benchmark import load_benchmark
from core.campaign import BenchmarkSpec
from core.request import Request, Response
from engines.engine import Engine, EngineConfig
from perf.measure import say

WINDOW = 2048
SEED = 1234
FOLDER = Path(__file__).resolve().parent / "benchmarks"
GENERATION = ("perf_gsm8k", "perf_bbh_snarks", "perf_bbh_date_understanding", "perf_bbh_movie_recommendation")
CHOICES = 2  # of the mixed benchmarks, those that come first
MIXED = ("perf_mmlu_letters", "perf_mmlu_texts", "perf_gsm8k", "perf_bbh_snarks")


def real_data() -> bool:
    """Whether the benchmark files of ``STEELYARD_TEST_DATA`` are there."""
    from tests.core.tasks.rows import DATA

    if not DATA.is_dir():
        say(f"No benchmark files at {DATA}: the bundled benchmarks are used, their prompts are shorter")
    return DATA.is_dir()


def generation_benchmarks() -> list[str]:
    """Return benchmarks that generate, longest answers first."""
    return (
        [str(FOLDER / f"{name}.yaml") for name in GENERATION] if real_data() else ["steelyard_arithmetic", "humaneval"]
    )


def mixed_benchmarks() -> list[str]:
    """Return letters, texts and two kinds of generation."""
    if real_data():
        return [str(FOLDER / f"{name}.yaml") for name in MIXED]
    return [f"steelyard_{name}" for name in ("letters", "facts", "arithmetic", "prose")]


def requests_of(name: str, limit: int, shots: int | None = None) -> list[Request]:
    """Return the requests of a benchmark's first ``limit`` docs, with its own number of few-shot examples or with ``shots``."""
    return load_benchmark(BenchmarkSpec(name=name, limit=limit, num_fewshot=shots), chat=None, seed=SEED).requests()


def run_at_once(engine: Engine, benchmarks: Sequence[Sequence[Request]]) -> list[Response]:
    """Run benchmarks at once, a thread each, as `flows.evaluate_model` does. Raises `RuntimeError` where a request failed."""
    with ThreadPoolExecutor(len(benchmarks)) as pool:
        responses = [each for run in pool.map(lambda asked: list(engine.run(asked)), benchmarks) for each in run]
    if failed := [response.error for response in responses if response.error]:
        raise RuntimeError(f"{len(failed)} requests failed; the first said: {failed[0]}")
    if len({response.id for response in responses}) != sum(map(len, benchmarks)):
        raise RuntimeError(f"{len(responses)} responses to {sum(map(len, benchmarks))} requests")
    return responses


def checkpoint() -> Path:
    """Find or make SmolLM2-135M-Instruct."""
    from tests.models import cache_directory, smollm2

    return smollm2(cache_directory(Path(".demo") / "models")).resolve()


def config(model: Path, dtype: str, **changes: Any) -> EngineConfig:
    """Return what engines open with here."""
    usual = EngineConfig(model=str(model), dtype=dtype, max_model_len=WINDOW, device="cpu", gpu_memory_gb=4)
    return replace(usual, **changes)
