"""Per-doc values → scores of tasks and groups, by lm-eval's own functions (0.4.13); one that fails costs its metric alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.benchmark.scoring import ScoredDocs, is_number
from core.benchmark.standard_error import aggregated
from core.errors import SteelyardError, reason_of
from core.sample import NOT_SCORED, Sample

Raw = dict[tuple[str, str], list[Any]]  # by (metric, filter)


@dataclass(frozen=True)
class Aggregates:
    """lm-eval's metrics by task and group, and the values by task that they are over; ``lost`` is `core.sample.Scoring.lost`."""

    metrics: Mapping[str, Any]
    raw: dict[str, Raw]
    samples: list[Sample]
    lost: tuple[str, ...]


def aggregate(tasks: Mapping[str, Any], groups: Mapping[str, Any], scored: Mapping[str, ScoredDocs]) -> Aggregates:
    """Aggregate tasks and groups, with standard errors.

    Where a metric's function raises, or gives no number, that metric has no score; a doc whose value is none among numbers is left
    out of it first. Raises `core.errors.SteelyardError` where nothing is left of a task, or a group cannot be made.
    """
    raw = {name: docs.raw for name, docs in scored.items()}
    samples = [sample for docs in scored.values() for sample in docs.samples]
    try:
        return Aggregates(_metrics(tasks, groups, raw), raw, samples, ())
    except Exception:  # a task's own functions raise anything; whose it was is found out one by one
        kept = {name: _kept(name, tasks[name], docs) for name, docs in scored.items()}
    lost = [
        f"{name}: {metric} after filter {filter_!r} has no score: {why}" for name, metric, filter_, why in _lost(kept)
    ]
    for name, found in kept.items():
        if not found.raw:
            raise SteelyardError(f"{name}: no metric could be aggregated; the first said: {found.lost[0][2]}")
    try:
        metrics = _metrics(tasks, groups, {name: found.raw for name, found in kept.items()})
    except Exception as error:
        raise SteelyardError(f"the scores of its group cannot be made: {reason_of(error)}") from error
    for name, metric, filter_, _ in _lost(kept):
        for group in (each for each in groups.values() if tasks[name] in each.get_all_tasks()):
            for key in (f"{metric},{filter_}", f"{metric}_stderr,{filter_}"):  # or a part would stand under its name
                metrics.get(group.name, {}).pop(key, None)
    faulty = {(name, doc_id): why for name, found in kept.items() for doc_id, why in found.faults.items()}
    samples = [_marked(sample, faulty.get((sample.task, sample.doc_id))) for sample in samples]
    return Aggregates(metrics, {name: found.raw for name, found in kept.items()}, samples, tuple(lost))


@dataclass(frozen=True)
class _Kept:
    """The values of a task that can be aggregated, docs left out with why, and (metric, filter, why) of those that cannot."""

    raw: Raw
    faults: dict[int, str]
    lost: list[tuple[str, str, str]]


def _lost(kept: Mapping[str, _Kept]) -> Iterator[tuple[str, str, str, str]]:
    for name, found in kept.items():
        for metric, filter_, why in found.lost:
            yield name, metric, filter_, why


def _kept(name: str, task: Any, docs: ScoredDocs) -> _Kept:
    raw: Raw = {}
    faults: dict[int, str] = {}
    lost = []
    for (metric, filter_), values in docs.raw.items():
        error = _fault(name, task, {(metric, filter_): values})
        sound = [value for value in values if is_number(value)]
        if error and 0 < len(sound) < len(values) and not _fault(name, task, {(metric, filter_): sound}):
            odd = zip(docs.docs[metric, filter_], values, strict=True)
            faults |= {doc: f"its {metric} is no number ({value!r})" for doc, value in odd if not is_number(value)}
            error, values = None, sound
        if error is None:
            raw[metric, filter_] = values
        else:
            lost.append((metric, filter_, reason_of(error)))
    return _Kept(raw, faults, lost)


def _fault(name: str, task: Any, raw: Raw) -> Exception | None:
    try:
        _metrics({name: task}, {}, {name: raw}, errors=False)
    except SteelyardError:
        raise
    except Exception as error:  # as above
        return error
    return None


def _metrics(
    tasks: Mapping[str, Any], groups: Mapping[str, Any], raw: Mapping[str, Raw], *, errors: bool = True
) -> dict[str, Any]:
    accumulated: dict[str, Any] = {
        name: {"task": task, "raw_metrics": raw[name], "logged_samples": []} for name, task in tasks.items()
    }
    metrics = aggregated(accumulated, groups, errors=errors)
    for name, values in raw.items():
        for metric, filter_ in values:
            float(metrics[name][f"{metric},{filter_}"])
    return metrics


def _marked(sample: Sample, why: str | None) -> Sample:
    if why is None or sample.error is not None:
        return sample
    return replace(sample, error=f"{NOT_SCORED}doc {sample.doc_id} of {sample.task}: {why}")
