"""A cell's line of the leaderboard, and its data quality: faults of its docs or answers that make its score worth less."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from core.log import log
from core.sample import NOT_SCORED, Sample, Scoring

# Fields that tell docs apart without changing what is asked.
NAMES_OF_DOCS = frozenset(
    {"id", "idx", "index", "uid", "guid", "key", "doc_id", "question_id", "task_id", "problem_id"}
)

LEADERBOARD_COLUMNS = (
    "campaign",
    "model",
    "benchmark",
    "task",
    "metric",
    "filter",
    "score",
    "stderr",
    "docs",
    "higher_is_better",
    "engine",
    "tensor_parallel",
    "pipeline_parallel",
    "replicas",
    "tokens_per_second",  # prompt and completion tokens answered, by the seconds that took
    "seconds",
    "reason",
    "cluster",  # the doc field that groups docs, where its benchmark names one
    "repeats",  # answers per doc, where docs have several
    "mean",  # of all those answers' own numbers; the benchmark's filter may count but the first
    "mean_stderr",
    "within",  # variance of a doc's answers, and between docs beyond that: core.scoring.statistics.repeated
    "between",
    "notes",  # what its data or answers hold against the score
    "fingerprint",
)


@dataclass(frozen=True)
class Quality:
    """Counts over a cell's samples."""

    docs: int
    failed: int  # no answer, counted in no score
    truncated: int  # an answer ended at its length limit
    shortened: int  # the prompt lost tokens from the left to fit the window
    dropped_tokens: int  # how many, over all prompts
    duplicates: int  # asks what an earlier doc of its task asks, under another name or none
    empty_targets: int
    unscored: int = 0  # answered, but a filter or a metric could not score it
    faults: Mapping[str, int] = field(default_factory=dict)  # of the docs as they were asked: core.benchmark.doc_faults


def quality_of(samples: Iterable[Sample]) -> Quality:
    """Count the faults of samples."""
    listed = list(samples)
    return Quality(
        docs=len(listed),
        failed=sum(not sample.is_answered for sample in listed),
        truncated=sum(sample.truncated for sample in listed),
        shortened=sum(sample.dropped_tokens > 0 for sample in listed),
        dropped_tokens=sum(sample.dropped_tokens for sample in listed),
        duplicates=len(listed) - len({(sample.task, _question(sample)) for sample in listed}),
        empty_targets=sum(not sample.target.strip() for sample in listed if sample.choices or sample.texts),
        unscored=sum(sample.error is not None and sample.is_answered for sample in listed),
        faults=dict(Counter(fault for sample in listed for fault in sample.faults)),
    )


def facts_of(scoring: Scoring) -> dict[str, Any]:
    """Return the facts of a scoring beside its scores, for the commit record. JSON values."""
    facts: dict[str, Any] = {"quality": asdict(quality_of(scoring.samples))}
    if scoring.warnings:
        facts["quality"]["warnings"] = list(scoring.warnings)
    if scoring.lost:
        facts["lost"] = list(scoring.lost)
    if scoring.repeats is not None:
        values = asdict(scoring.repeats)
        facts["repeats"] = {name: None if math.isnan(value) else value for name, value in values.items()}
    if scoring.remark:
        facts["remark"] = scoring.remark
    return facts


def warn_of_faults(label: str, scoring: Scoring) -> None:
    """Log what of a cell could not be scored."""
    errors = [sample.error for sample in scoring.samples if sample.error is not None and sample.is_answered]
    if errors:
        first = errors[0].removeprefix(NOT_SCORED)
        log.warning(f"{label}: {len(errors):,} of {len(scoring.samples):,} docs not scored; the first: {first}")
    for fault in scoring.lost:
        log.warning(f"{label}: {fault}")


def failed_docs(record: Mapping[str, Any]) -> int:
    """Return how many docs of a complete cell have no answer, or none that could be scored, by its commit record."""
    counts = record["metadata"].get("quality", {})
    return int(counts.get("failed", 0)) + int(counts.get("unscored", 0))


def notes(counts: Mapping[str, Any]) -> str:
    """Return in words what `Quality`, as a mapping, and ``warnings`` hold against a score; empty where nothing does."""
    docs = counts.get("docs", 0)
    found = [
        (counts.get("failed", 0), f"of {docs:,} docs not answered"),
        (counts.get("unscored", 0), f"of {docs:,} docs not scored"),
        (counts.get("truncated", 0), f"of {docs:,} answers cut at their length limit"),
        (
            counts.get("shortened", 0),
            f"of {docs:,} prompts cut on the left, {counts.get('dropped_tokens', 0):,} tokens in all",
        ),
        (counts.get("duplicates", 0), "duplicate docs"),
        (counts.get("empty_targets", 0), "empty targets"),
    ]
    found += [(count, f"of {docs:,} docs: {fault}") for fault, count in counts.get("faults", {}).items()]
    return "; ".join([*(f"{count:,} {what}" for count, what in found if count), *counts.get("warnings", ())])


def _question(sample: Sample) -> str:
    doc = json.loads(sample.doc)
    if not isinstance(doc, dict):
        return sample.doc
    return json.dumps({name: value for name, value in doc.items() if name.lower() not in NAMES_OF_DOCS}, sort_keys=True)


def early(record: Mapping[str, Any] | None) -> str:
    """Return in words that a cell ended early, by its record; empty where it did not."""
    return (
        f"ended after {record['docs']:,} of {record['of']:,} docs" if record and record["docs"] < record["of"] else ""
    )


def leaderboard_row(campaign: str | None, model: str, benchmark: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `LEADERBOARD_COLUMNS` of a complete cell, from its commit record."""
    headline, metadata = record["headline"], record["metadata"]
    placement, seconds = metadata.get("placement", {}), metadata.get("seconds")
    repeats = metadata.get("repeats") or {}
    tokens = metadata.get("prompt_tokens", 0) + metadata.get("completion_tokens", 0)
    return {
        "campaign": campaign,
        "model": model,
        "benchmark": benchmark,
        "score": headline["value"],
        **{name: headline[name] for name in ("task", "metric", "filter", "stderr", "docs", "higher_is_better")},
        "engine": metadata.get("engine"),
        **{name: placement.get(name) for name in ("tensor_parallel", "pipeline_parallel", "replicas", "reason")},
        "tokens_per_second": tokens / seconds if tokens and seconds else None,
        "seconds": seconds,
        "cluster": metadata.get("cluster"),
        "repeats": repeats.get("repeats"),
        "mean": repeats.get("value"),
        "mean_stderr": repeats.get("stderr"),
        **{name: repeats.get(name) for name in ("within", "between")},
        "notes": "; ".join(filter(None, _notes(record))),
        "fingerprint": record["fingerprint"],
    }


def _notes(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons why a cell's score is not what its benchmark's name says, or is worth less."""
    if record["settings"].get("benchmark", {}).get("fewshot_sampler"):
        yield "the same few-shot examples for every doc (first_n)"
    yield record["metadata"].get("remark") or ""
    yield early(record["metadata"].get("adaptive"))
    yield notes(record["metadata"].get("quality", {}))
    yield from record["metadata"].get("lost") or ()
