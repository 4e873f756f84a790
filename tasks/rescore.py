"""Scoring again what is stored, without an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from core.cell_work import CellWork
from core.compare.adaptive import doc_of_sample, of_docs
from core.results import open_store
from core.store.quality import facts_of
from tasks.retry import RETRYING


@task(name="score again", task_run_name="score again {label}", cache_policy=NO_CACHE, **RETRYING)
async def score_again(work: quote[CellWork], donor: quote[Mapping[str, Any]], results: str, label: str) -> bool:
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
