"""Cells, scorings and responses to store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from core.request import Generated, Response, Scored
from core.sample import Cell, Sample, Score, Scoring
from core.store.schema import samples_tables

PLACEMENT = {"tensor_parallel": 2, "pipeline_parallel": 1, "replicas": 1, "reason": "weights of 35 GB exceed 30 GB"}
METADATA: dict[str, Any] = {
    "engine": "distributed",
    "placement": PLACEMENT,
    "seconds": 4.0,
    "prompt_tokens": 300,
    "completion_tokens": 100,
}


def make_cell(fingerprint: str = "a", model: str = "tiny", benchmark: str = "gsm8k") -> Cell:
    settings = {"checkpoint": "c0ffee", "revision": "main", "dtype": "float32"}
    return Cell(fingerprint=fingerprint * 64, model=model, benchmark=benchmark, settings=settings)


def make_scoring(docs: int = 3, value: float = 1.0, task: str = "gsm8k") -> Scoring:
    samples = tuple(
        Sample(
            task=task,
            doc_id=doc_id,
            doc='{"question": "2 + 2"}',
            prompt="2 + 2 =",
            choices=(" 4", " 5"),
            target="0",
            logprobs=(-0.5, -1.5),
            is_greedy=(True, False),
            filtered={"none": "4"},
            values={"acc,none": value},
            value=value,
        )
        for doc_id in range(docs)
    )
    score = Score(task, "acc", "none", value, 0.1, docs, higher_is_better=True, primary=True)
    return Scoring(samples=samples, scores=(score,), headline=score)


def make_responses(count: int = 3) -> list[Response]:
    generated = [Generated(f"g{i}", f"text {i}", "stop", 7, 3) for i in range(count)]
    scored = [Scored(f"s{i}", -0.25 * i, True, 2, 9, truncated=i) for i in range(count)]
    return [*generated, *scored]


def samples_table(cell: Cell, samples: Iterable[Sample], metadata: Mapping[bytes, bytes]) -> pa.Table:
    return pa.concat_tables(samples_tables(cell, samples, metadata))
