"""Adaptive sampling: docs in random order, in rounds, until a model is told apart from others. Pure.

Docs are named ``<task>/<doc id>``, as request ids begin. Their order is the same for every model and in every campaign, so what
two models have answered is the beginning of one order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.sample import Sample, Scoring

FIRST_ROUND = 64  # docs
GROWTH = 1.5  # of the docs asked with each round: scores are looked at a few times, and the engine seldom runs dry


def doc_of_sample(sample: Sample) -> str:
    """Doc of a sample."""
    return f"{sample.task}/{sample.doc_id}"


def shuffled(docs: Iterable[str]) -> list[str]:
    """Docs, each once, in an order that has nothing to do with what they ask."""
    return sorted(set(docs), key=lambda doc: hashlib.sha256(doc.encode()).digest())


def rounds(docs: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split docs into rounds."""
    begin, end = 0, FIRST_ROUND
    while begin < len(docs):
        yield docs[begin:end]
        begin, end = end, math.ceil(end * GROWTH)


def values_of(samples: Iterable[Sample]) -> dict[str, float]:
    """Values by doc; docs without one are left out."""
    return {doc_of_sample(sample): sample.value for sample in samples if sample.value is not None}


def of_docs(scoring: Scoring, docs: Iterable[str]) -> Scoring:
    """A scoring without the samples of docs that were not asked."""
    kept = set(docs)
    return replace(scoring, samples=tuple(each for each in scoring.samples if doc_of_sample(each) in kept))


def same_docs(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two cells, by their settings, score the same docs in the same way, whatever the prompts around them."""
    kept = ("version", "num_fewshot", "repeats", "config", "rows", "targets")
    tasks = [settings.get("benchmark", {}).get("tasks", {}) for settings in (one, other)]
    return tasks[0].keys() == tasks[1].keys() and all(
        tasks[0][name].get(key) == tasks[1][name].get(key) for name in tasks[0] for key in kept
    )


def early(record: Mapping[str, Any] | None) -> str:
    """Say in words that a cell ended early, by what its record says of it; empty where it did not."""
    return (
        f"ended after {record['docs']:,} of {record['of']:,} docs" if record and record["docs"] < record["of"] else ""
    )
