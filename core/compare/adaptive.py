"""Adaptive sampling: docs in random order, in rounds, until a model is told apart from others.

Docs are named ``<task>/<doc id>``, as request ids begin. Their order is the same for every model and in every campaign, so what
two models have answered is the beginning of one order. What is said of a model holds after every number of docs at once, so that
one may look early: empirical-Bernstein confidence sequences for sampling without replacement (Waudby-Smith and Ramdas,
"Confidence sequences for sampling without replacement", NeurIPS 2020; weights as in their "Estimating means of bounded random
variables by betting", JRSS-B 2024, section 3.2), about the score that all docs would give.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from core.cell_work import CellWork
from core.request import Request, Response, doc_of
from core.results import Store
from core.sample import Sample, Scoring
from core.spec.parts import AdaptiveSpec

FIRST_ROUND = 64  # docs
GROWTH = 1.5  # of the docs asked with each round: scores are looked at a few times, and the engine seldom runs dry
ALPHA = 0.05
FEWEST = 30  # docs before anything is decided: what people will not believe from fewer
MOST_WEIGHT = 0.75  # of one doc; below 1, or a single doc could decide


def confidence_sequence(
    values: Sequence[float] | np.ndarray, docs: int, *, alpha: float = ALPHA, least: float = 0.0, most: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Bound the mean of ``docs`` values by the first of them, in random order, each within [``least``, ``most``].

    Returns low and high ends [values]: after ``t + 1`` values the mean is from ``low[t]`` to ``high[t]``.

    With probability 1 - ``alpha`` the mean is in all of the intervals at once. Each is within the one before it; with all docs
    known it is the mean. Raises `ValueError` for values out of range or more of them than docs.
    """
    scaled = (np.asarray(values, float) - least) / (most - least)
    count = scaled.size
    if count > docs:
        raise ValueError(f"{count} values of {docs} docs")
    if not count:
        return np.zeros(0), np.zeros(0)
    if scaled.min() < 0 or scaled.max() > 1:
        raise ValueError(f"values from {least:g} to {most:g} are expected, not {min(values):g} to {max(values):g}")
    number = np.arange(1, count + 1)
    # Mean and variance as they were known before each doc, with half a made-up doc of each end.
    means = (0.5 + np.cumsum(scaled)) / (number + 1)
    before = np.concatenate([[0.5], means[:-1]])
    variances = (0.25 + np.cumsum((scaled - means) ** 2)) / (number + 1)
    known = np.concatenate([[0.25], variances[:-1]])
    weight = np.minimum(MOST_WEIGHT, np.sqrt(2 * math.log(2 / alpha) / (known * number * np.log(1 + number))))
    cost = np.cumsum((scaled - before) ** 2 * (-np.log1p(-weight) - weight))
    # After s have been seen the mean of those to come follows from the whole mean: (docs · mean − s) / (docs − seen).
    seen = np.concatenate([[0.0], np.cumsum(scaled)[:-1]])
    rest = docs - number + 1
    scale = np.cumsum(weight * docs / rest)
    centre = np.cumsum(weight * (scaled + seen / rest)) / scale
    half = (math.log(2 / alpha) + cost) / scale
    # What is sure in any case: the docs to come count between nothing and everything.
    total = np.cumsum(scaled)
    low = np.maximum(centre - half, total / docs)
    high = np.minimum(centre + half, (total + docs - number) / docs)
    width = most - least
    return least + width * np.maximum.accumulate(low), least + width * np.minimum.accumulate(high)


@dataclass(frozen=True)
class Standing:
    """How a model stands to another: ``verdict``, and bounds of its score less the other's over all docs.

    ``docs`` were answered by both.
    """

    against: str
    verdict: Literal["above", "below", "alike", "open"]
    docs: int
    low: float
    high: float

    def __str__(self) -> str:
        words = {"alike": "as good as", "open": "not told apart from"}
        return f"{words.get(self.verdict, self.verdict)} {self.against} ({self.low:+.3f} to {self.high:+.3f})"


def standing(
    against: str,
    own: Mapping[str, float],
    other: Mapping[str, float],
    order: Sequence[str],
    *,
    margin: float = 0.0,
    alpha: float = ALPHA,
) -> Standing:
    """Compare a model with another by their values between 0 and 1, by doc; ``order`` has all docs in the random order of asking.

    Docs are compared one by one, which says more than two scores. With probability 1 - ``alpha`` the verdict is that of all docs,
    however often one looks. Two whose scores differ by ``margin`` or less are alike. Raises `ValueError` for other values.
    """
    both = [doc for doc in order if doc in own and doc in other]
    differences = [own[doc] - other[doc] for doc in both]
    ends = confidence_sequence(differences, len(order), alpha=alpha, least=-1.0, most=1.0)
    low, high = (float(end[-1]) for end in ends) if both else (-1.0, 1.0)
    verdict: Literal["above", "below", "alike", "open"] = "open"
    if len(both) >= min(FEWEST, len(order)):
        if low > 0 or high < 0:
            verdict = "above" if low > 0 else "below"
        elif -margin <= low and high <= margin:
            verdict = "alike"
    return Standing(against, verdict, len(both), low, high)


def doc_of_sample(sample: Sample) -> str:
    """Return the name of a sample's doc."""
    return f"{sample.task}/{sample.doc_id}"


def shuffled(docs: Iterable[str]) -> list[str]:
    """Return docs, each once, in an order that has nothing to do with what they ask."""
    return sorted(set(docs), key=lambda doc: hashlib.sha256(doc.encode()).digest())


def rounds(docs: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split docs into rounds."""
    begin, end = 0, FIRST_ROUND
    while begin < len(docs):
        yield docs[begin:end]
        begin, end = end, math.ceil(end * GROWTH)


def values_of(samples: Iterable[Sample]) -> dict[str, float]:
    """Return values by doc; docs without one are left out."""
    return {doc_of_sample(sample): sample.value for sample in samples if sample.value is not None}


def of_docs(scoring: Scoring, docs: Iterable[str]) -> Scoring:
    """Return a scoring without the samples of docs that were not asked."""
    kept = set(docs)
    return replace(scoring, samples=tuple(each for each in scoring.samples if doc_of_sample(each) in kept))


def same_docs(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two cells, by their settings, score the same docs in the same way, whatever the prompts around them."""
    kept = ("version", "num_fewshot", "repeats", "config", "rows", "targets")
    tasks = [settings.get("benchmark", {}).get("tasks", {}) for settings in (one, other)]
    return tasks[0].keys() == tasks[1].keys() and all(
        tasks[0][name].get(key) == tasks[1][name].get(key) for name in tasks[0] for key in kept
    )


class Rounds:
    """Requests of a cell, round by round, until its model's standings are settled.

    ``patiently`` calls the store until it answers.
    """

    def __init__(
        self,
        spec: AdaptiveSpec,
        work: CellWork,
        requests: Mapping[str, Request],
        store: Store,
        patiently: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._spec, self._work, self._store, self._patiently = spec, work, store, patiently
        self._by_doc: defaultdict[str, dict[str, Request]] = defaultdict(dict)
        for key, request in requests.items():
            self._by_doc[doc_of(key)][key] = request
        self._order = shuffled(self._by_doc)
        self._others: dict[str, dict[str, float]] = {}  # values by doc of those whose results are there
        self.standings: list[Standing] = []
        self.docs: set[str] = set()

    def __iter__(self) -> Iterator[dict[str, Request]]:
        """Yield the requests of the next round, as long as `look` has not seen that it is enough."""
        for docs in rounds(self._order):
            self.docs.update(docs)
            yield {key: request for doc in docs for key, request in self._by_doc[doc].items()}
            if self._is_settled:
                return

    def look(self, responses: Mapping[str, Response]) -> None:
        """Compare the answers so far with the others'."""
        if missing := self.missing():
            self._others |= self._patiently(partial(self._values, missing))
        if not self._others:
            return
        own = values_of(self._work.benchmark.score(self.asked(responses)).samples)
        if not all(0 <= value <= 1 for values in (own, *self._others.values()) for value in values.values()):
            self.standings = []  # the bounds hold for such values only
            return
        alpha = self._spec.alpha / len(self._spec.against)  # Bonferroni
        self.standings = [
            standing(name, own, values, self._order, margin=self._spec.margin, alpha=alpha)
            for name, values in self._others.items()
        ]

    def asked(self, responses: Mapping[str, Response]) -> dict[str, Response]:
        """Return the responses of the docs asked so far: an earlier run may have gone on for longer."""
        return {key: response for key, response in responses.items() if doc_of(key) in self.docs}

    def missing(self) -> list[str]:
        """Return the models whose results were never there."""
        return [name for name in self._spec.against if name not in self._others]

    def __str__(self) -> str:
        """Describe how it ended, for people."""
        if missing := self.missing():
            why = f"there are no results of {', '.join(missing)} to compare with"
        elif not self.standings:
            why = "its values are not between 0 and 1, so models cannot be told apart early"
        else:
            why = "; ".join(map(str, self.standings))
        return f"{len(self.docs):,} of {len(self._order):,} docs answered: {why}"

    def record(self) -> dict[str, Any]:
        """Return the part of the cell's record on this, JSON values."""
        return {
            "docs": len(self.docs),
            "of": len(self._order),
            "standings": [asdict(each) for each in self.standings],
            "missing": self.missing(),
        }

    @property
    def _is_settled(self) -> bool:
        return len(self.standings) == len(self._spec.against) and all(each.verdict != "open" for each in self.standings)

    def _values(self, models: Sequence[str]) -> dict[str, dict[str, float]]:
        """Values by doc of other models' newest complete cells of the same docs, by model; those without one are left out."""
        board, cell = self._store.leaderboard(), self._work.cell
        found: dict[str, dict[str, float]] = {}
        known = board[board.model.isin(models) & (board.benchmark == cell.benchmark)]
        for model, fingerprint in zip(known.model, known.fingerprint, strict=True):
            record = None if model in found else self._store.commit_record(fingerprint)
            if record is not None and same_docs(cell.settings, record["settings"]):
                found[model] = values_of(self._store.cell_samples(fingerprint))
        return {model: values for model, values in found.items() if values}
