"""Scoring again what is stored, without an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from core.cell_work import CellWork
from core.compare.adaptive import doc_of_sample, of_docs
from core.results import open_store
from core.store.quality import facts_of
from tasks.steps import RETRYING, step


@step("score again", "{work.label}", **RETRYING)
async def score_again(work: CellWork, donor: Mapping[str, Any], results: str) -> bool:
    """Score the stored samples of ``donor``'s cell as ``work``'s, and commit that. Returns whether the record is this call's.

    What the responses took to get stays in the new record, with the fingerprint of the cell they were computed for.
    """
    return await asyncio.to_thread(rescore_cell, work, donor, results)


def rescore_cell(work: CellWork, donor: Mapping[str, Any], results: str) -> bool:
    """See `score_again`."""
    store = open_store(results)
    samples = store.cell_samples(donor["fingerprint"])
    scoring = of_docs(work.benchmark.score(work.benchmark.recall(samples)), map(doc_of_sample, samples))
    origin = donor["metadata"].get("rescored_from", donor["fingerprint"])
    metadata = {**donor["metadata"], "repeats": None, **facts_of(scoring), "rescored_from": origin}
    return store.commit(work.cell, scoring, metadata)
