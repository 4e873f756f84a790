"""Cells, and their results: samples (one per doc of a task) and scores (one per task or group, metric and filter)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

NOT_SCORED = "not scored: "  # begins the error of a sample whose doc was answered


@dataclass(frozen=True)
class Sample:
    """One doc of one task, answered and scored.

    Generation fills ``texts`` (one per request, repeats in order); loglikelihood fills ``logprobs`` and ``is_greedy`` (one per
    choice, in the benchmark's order). ``filtered`` maps filter name → answer after the filter, as text. ``values`` maps
    ``"metric,filter"`` → this doc's value where that is one number. ``value`` is the primary metric's number, None where the
    metric only exists over the whole task (perplexity, F1) or the sample failed (``error``): it was not answered, or a filter or
    a metric could not score it; then ``values`` are those of the other filters.
    """

    task: str
    doc_id: int
    doc: str  # JSON
    prompt: str
    choices: tuple[str, ...]  # continuations scored, empty for generation
    target: str
    texts: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    is_greedy: tuple[bool, ...] = ()
    filtered: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    value: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning: tuple[str, ...] = ()  # what stood before each of ``texts``; empty where no answer has any
    truncated: bool = False  # an answer stopped at its length limit
    dropped_tokens: int = 0  # of the prompts, from the left, to fit the window
    images: tuple[str, ...] = ()  # digest of each image of the prompt, see core.benchmark.images.EncodedImage
    error: str | None = None
    faults: tuple[
        str, ...
    ] = ()  # what makes the doc's number worth less, whatever was answered: core.benchmark.doc_faults

    @property
    def is_answered(self) -> bool:
        """Whether the doc has all its answers."""
        return self.error is None or self.error.startswith(NOT_SCORED)


@dataclass(frozen=True)
class Score:
    """One aggregate. ``stderr`` is None where no standard error is defined. ``task`` is a group's name where ``group``."""

    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    docs: int
    higher_is_better: bool
    primary: bool  # the one number that stands for the task in a leaderboard
    group: bool = False


@dataclass(frozen=True)
class Scoring:
    """The result of scoring a cell. ``headline`` is the benchmark's own number in the leaderboard.

    ``repeats`` takes apart the primary metric over single answers, where docs have several. ``remark`` says how the headline came
    about where no task and no group gives it (`core.scoring.headline`).
    ``lost`` says of each metric that has no score why that is so. ``warnings`` are the harness's, of prompts and answers.
    """

    samples: tuple[Sample, ...]
    scores: tuple[Score, ...]
    headline: Score
    repeats: Repeats | None = None
    remark: str = ""
    warnings: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """The unit of work and of truth: one checkpoint × one benchmark under settings that fix its outputs.

    ``settings`` is everything hashed into ``fingerprint``, for people to read; what only changes speed (engine, tensor
    parallel, batch sizes) is not part of it.
    """

    fingerprint: str  # 64 hex digits
    model: str  # display name
    benchmark: str  # label, see core.campaign.benchmark_label
    settings: dict[str, Any]


@dataclass(frozen=True)
class Repeats:
    """Spread of several answers per doc: variance ``within`` a doc (sampling) and ``between`` docs' own means.

    ``repeats`` is the harmonic mean of answers per doc. ``within`` is NaN where no doc has two, ``between`` too.
    """

    value: float
    stderr: float
    docs: int
    repeats: float
    within: float
    between: float

    def stderr_at(self, repeats: float) -> float:
        """Standard error with so many answers per doc, √((between + within/repeats)/docs); ``math.inf`` for the least there is."""
        return math.sqrt((self.between + self.within / repeats) / self.docs)
