"""Adaptive sampling: docs in random order, in rounds, until a model is told apart from others. Pure.

Docs are named ``<task>/<doc id>``, as request ids begin. Their order is the same for every model and in every campaign, so what
two models have answered is the beginning of one order.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from core.cell_work import CellWork
from core.compare.sequential import Standing, standing
from core.request import Request, Response, doc_of
from core.results import Store
from core.sample import Sample, Scoring
from core.spec.adaptive import AdaptiveSpec
from core.store.quality import facts_of

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


def rescore(store: Store, work: CellWork, donor: Mapping[str, Any]) -> bool:
    """Score the stored samples of ``donor``'s cell as ``work``'s, and commit that. Returns whether the record is this call's.

    ``donor`` is its commit record. What the responses took to get stays in the new one, with the fingerprint of the cell they were
    computed for.
    """
    samples = store.cell_samples(donor["fingerprint"])
    scoring = of_docs(work.benchmark.score(work.benchmark.recall(samples)), map(doc_of_sample, samples))
    origin = donor["metadata"].get("rescored_from", donor["fingerprint"])
    metadata = {**donor["metadata"], "repeats": None, **facts_of(scoring), "rescored_from": origin}
    return store.commit(work.cell, scoring, metadata)


def same_docs(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two cells, by their settings, score the same docs in the same way, whatever the prompts around them."""
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
        """Responses of the docs asked so far: an earlier run may have gone on for longer."""
        return {key: response for key, response in responses.items() if doc_of(key) in self.docs}

    def missing(self) -> list[str]:
        """Models whose results were never there."""
        return [name for name in self._spec.against if name not in self._others]

    def __str__(self) -> str:
        """How it ended, for people."""
        if missing := self.missing():
            why = f"there are no results of {', '.join(missing)} to compare with"
        elif not self.standings:
            why = "its values are not between 0 and 1, so models cannot be told apart early"
        else:
            why = "; ".join(map(str, self.standings))
        return f"{len(self.docs):,} of {len(self._order):,} docs answered: {why}"

    def record(self) -> dict[str, Any]:
        """What the cell's record says of it. JSON values."""
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
