"""The past in a results store: jobs as they ran, and tokens per doc of each benchmark. Pure, but for `read_history`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.planning.cost.model import Measured, Tokens, setup_of
from core.results import Store
from core.store.quality import early

MOST_CELLS = 2000  # newest that are read: records of large benchmarks are some 30 kB each


@dataclass(frozen=True)
class PastCell:
    """The past of one cell: ``docs`` of the benchmark with so many prompt, cached and completion tokens in all."""

    benchmark: str
    checkpoint: str
    limit: int | None
    shots: int
    docs: int
    prompt: float
    cached: float
    completion: float
    ended: float


@dataclass(frozen=True)
class History:
    """Past jobs and cells, oldest first; ``cells`` only those computed in one go, for others tell their last part's tokens."""

    jobs: tuple[Measured, ...] = ()
    cells: tuple[PastCell, ...] = ()


def read_history(store: Store, kind: str, most: int = MOST_CELLS) -> History:
    """Learn from the newest cells of a store. Raises `core.errors.StoreError` where it cannot be read.

    ``kind`` is the GPUs' where a record does not tell it: most stores are filled by one fleet.
    """
    wanted: dict[str, None] = {}
    for run in reversed(store.campaigns()):
        for model in run["models"]:
            wanted.update(dict.fromkeys(model["cells"].values()))
        if len(wanted) >= most:
            break
    return history_of(store.commit_records(list(wanted)[:most]).values(), kind)


def history_of(records: Iterable[Mapping[str, Any]], kind: str) -> History:
    """Return the jobs and cells of commit records; a record without timings is left out."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    cells = []
    for record in records:
        metadata = record["metadata"]
        if not metadata.get("seconds") or "weight_bytes" not in metadata.get("placement", {}):
            continue
        placement, loaded = metadata["placement"], metadata.get("load_seconds") or 0.0
        degrees = tuple(placement.get(name, 1) for name in ("tensor_parallel", "pipeline_parallel", "replicas"))
        groups[record["settings"].get("checkpoint"), metadata.get("engine"), degrees, loaded].append(record)
        if not _is_part(record):
            cells.append(_cell(record))
    jobs = [job for key, group in groups.items() for job in _jobs(group, key[-1], kind)]
    return History(tuple(sorted(jobs, key=lambda each: each.ended)), tuple(sorted(cells, key=lambda each: each.ended)))


def _jobs(records: Sequence[Mapping[str, Any]], loaded: float, kind: str) -> Iterable[Measured]:
    """A model's benchmarks run at once on one engine, so their seconds overlap: a job took as long as the longest of them.

    Cells of one engine share its load seconds to the last digit. Those of a service found loaded (0) are one job where their times
    overlap.
    """
    records = sorted(records, key=_ended)
    if loaded:
        yield _job(records, max(record["metadata"]["seconds"] for record in records), loaded, kind)
        return
    together: list[Mapping[str, Any]] = []
    for record in sorted(records, key=_began):
        if together and _began(record) >= max(map(_ended, together)):
            yield _job(together, _span(together), None, kind)
            together = []
        together.append(record)
    yield _job(together, _span(together), None, kind)


def _job(records: Sequence[Mapping[str, Any]], seconds: float, loaded: float | None, kind: str) -> Measured:
    first = records[0]
    metadata, placement = first["metadata"], first["metadata"]["placement"]
    totals = {
        name: float(sum(record["metadata"].get(name, 0) for record in records))
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens")
    }
    setup = setup_of(
        str(first["settings"].get("checkpoint")),
        metadata.get("gpu_kind") or kind,
        placement["weight_bytes"],
        placement.get("dtype", ""),
        tensor_parallel=placement.get("tensor_parallel", 1),
        stages=placement.get("pipeline_parallel", 1) * placement.get("replicas", 1),
        name=first.get("model", ""),
    )
    computed = max(0.0, totals["prompt_tokens"] - totals["cached_tokens"])
    tokens = Tokens(computed, totals["cached_tokens"], totals["completion_tokens"])
    estimate = metadata.get("estimate") or {}
    # What was foretold is of all benchmarks in one go, and says nothing of a run that had less to do.
    whole = estimate.get("benchmarks") == len(records) and not any(map(_is_part, records))
    foretold = estimate.get("seconds") if whole and loaded is not None else None
    return Measured(setup, tokens, seconds, loaded, max(map(_ended, records)), foretold)


def _cell(record: Mapping[str, Any]) -> PastCell:
    metadata, benchmark = record["metadata"], record["settings"].get("benchmark", {})
    shots = [task.get("num_fewshot") or 0 for task in benchmark.get("tasks", {}).values()]
    rows = next((entry["rows"] for entry in record["files"] if entry["path"].startswith("samples/")), 0)
    return PastCell(
        benchmark=record["benchmark"],
        checkpoint=str(record["settings"].get("checkpoint")),
        limit=benchmark.get("limit"),
        shots=max(shots, default=0),
        docs=rows,
        prompt=metadata.get("prompt_tokens", 0),
        cached=metadata.get("cached_tokens", 0),
        completion=metadata.get("completion_tokens", 0),
        ended=_ended(record),
    )


def _is_part(record: Mapping[str, Any]) -> bool:
    """Return whether not all docs of a cell were answered in the run that completed it."""
    return bool(record["metadata"].get("resumed") or early(record["metadata"].get("adaptive")))


def _ended(record: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(record["committed"]).timestamp()


def _began(record: Mapping[str, Any]) -> float:
    return _ended(record) - float(record["metadata"]["seconds"])


def _span(records: Sequence[Mapping[str, Any]]) -> float:
    return max(map(_ended, records)) - min(map(_began, records))
