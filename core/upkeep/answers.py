"""Answers that the store holds to what a cell asks, whichever cell they were given for: scored without an engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.cell_work import CellWork
from core.errors import StoreError, StoreUnreachableError
from core.log import log
from core.request import Generated, Response
from core.results import Store
from core.sample import Scoring
from core.store.quality import warn_of_faults
from core.upkeep.recompute import rescore, rescored_metadata


@dataclass(frozen=True)
class Answers:
    """Responses by request id, and how the first of them were computed (JSON values, for a commit record).

    ``origin`` is the cell that others' answers stem from; None where all are the cell's own.
    """

    responses: dict[str, Response]
    metadata: dict[str, Any]
    origin: str | None = None

    def are_whole(self, work: CellWork, *, errors_too: bool = False) -> bool:
        """Whether every request has its answer; with ``errors_too`` a failed one will do."""
        given = {key for key, response in self.responses.items() if errors_too or response.error is None}
        return bool(given) and all(request.id in given for request in work.benchmark.requests())


def stored_answers(store: Store, work: CellWork, own: Mapping[str, Response] | None = None) -> Answers:
    """Return what is stored of a cell that is not complete, and of cells that asked the same; of two the one without error.

    ``own`` are the cell's own responses, where they are read already.
    """
    fingerprint = work.cell.fingerprint
    responses = dict(store.responses(fingerprint) if own is None else own)
    asked = store.cells_asking(work.asked) if work.asked else {}
    metadata, origin = asked.pop(fingerprint, {}), None
    for other, about in asked.items():
        if Answers(responses, metadata).are_whole(work):
            break
        given, others = _given(store, work, other, about)
        fresh = {key: each for key, each in given.items() if _is_better(each, responses.get(key))}
        if fresh and origin is None:
            metadata, origin = metadata if responses else others, others.get("rescored_from", other)
        responses |= fresh
    return Answers(responses, metadata, origin)


def is_answered(store: Store, work: CellWork) -> bool:
    """Whether a cell that is not complete can be scored as it is: all its answers are there, or an adaptive one was settled."""
    if work.adaptive:
        return next(_settled(store, work), None) is not None
    return stored_answers(store, work).are_whole(work)


def score_stored(store: Store, work: CellWork, *, errors_too: bool = False) -> bool:
    """Score a cell by what is stored and commit it; False where that is not all that it asks.

    With ``errors_too`` a request that failed stays so.
    """
    if work.adaptive:
        donor = next(_settled(store, work), None)
        if donor is not None:
            rescore(store, work, donor)
        return donor is not None
    answers = stored_answers(store, work)
    if not answers.are_whole(work, errors_too=errors_too):
        return False
    scoring = work.benchmark.score(answers.responses)
    warn_of_faults(work.label, scoring)
    store.commit(work.cell, scoring, _metadata(work, answers, scoring))
    return True


def _given(
    store: Store, work: CellWork, fingerprint: str, about: Mapping[str, Any]
) -> tuple[dict[str, Response], dict[str, Any]]:
    """Return the answers of another cell, and their metadata; none where what is stored of it is damaged."""
    record = store.commit_record(fingerprint)
    if record is None:
        return store.responses(fingerprint), dict(about)
    try:
        return work.benchmark.recall(store.cell_samples(fingerprint)), dict(record["metadata"])
    except StoreUnreachableError:
        raise
    except StoreError as error:
        log.warning(f"{work.label}: answers to the same are not used: {error}")
        return {}, {}


def _settled(store: Store, work: CellWork) -> Iterator[dict[str, Any]]:
    """Yield the records of other cells that asked the same of fewer docs."""
    for fingerprint in store.cells_asking(work.asked) if work.asked else ():
        record = store.commit_record(fingerprint) if fingerprint != work.cell.fingerprint else None
        if record is not None:
            yield record


def _is_better(response: Response, than: Response | None) -> bool:
    return than is None or (than.error is not None and response.error is None)


def _metadata(work: CellWork, answers: Answers, scoring: Scoring) -> dict[str, Any]:
    responses = answers.responses.values()
    counts = {
        "resumed": len(answers.responses),
        "prompt_tokens": sum(response.prompt_tokens for response in responses),
        "cached_tokens": sum(response.cached_tokens for response in responses),
        "completion_tokens": sum(each.completion_tokens for each in responses if isinstance(each, Generated)),
    }
    return {
        **counts,
        **rescored_metadata(answers.metadata, scoring),
        "cluster": work.cluster,
        **({"rescored_from": answers.origin} if answers.origin else {}),
    }
