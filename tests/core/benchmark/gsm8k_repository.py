"""GSM8K as a repository of the hub, from real rows, and ways to load it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.benchmark.benchmark import Benchmark, load_benchmark
from core.campaign import BenchmarkSpec, DatasetsSpec
from tests.core.tasks.rows import DATA

real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no benchmark files at {DATA}; set STEELYARD_TEST_DATA")
CARD = b"""---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: socratic
  data_files: [{split: test, path: socratic/test-*}]
---
"""
GSM8K = BenchmarkSpec(name="gsm8k", limit=4)


def repository(first: int = 0) -> dict[str, bytes]:
    """GSM8K as a repository of the hub: its card and files of real rows, from row ``first``."""
    rows = (DATA / "gsm8k_test.jsonl").read_bytes().splitlines(keepends=True)[first : first + 30]
    return {
        "README.md": CARD,
        "main/train-0.jsonl": (DATA / "gsm8k_train_200.jsonl").read_bytes(),
        "main/test-0.jsonl": b"".join(rows),
        "socratic/test-0.jsonl": rows[0],
    }


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def offline(mirror: Path | str | None) -> DatasetsSpec:
    return DatasetsSpec(mirror=str(mirror) if mirror else None, offline=True)


def load(spec: BenchmarkSpec, datasets: DatasetsSpec) -> Benchmark:
    return load_benchmark(spec, chat=None, seed=3, datasets=datasets)
