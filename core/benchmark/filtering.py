"""Filters of an lm-eval task (0.4.13), applied so that a doc that one of them cannot take costs that doc alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.errors import SteelyardError

Docs = Sequence[tuple[int, Sequence[Any]]]  # doc id, its lm-eval instances
Apply = Callable[[list[Any]], Any]  # a filter, on instances
PROBES = 64  # docs over all, each tried alone: where none passes, none is taken to. Some filters take a second a call
ALL = ""  # the filters of a task that applies them by itself


def apply_filters(task: Any, by_doc: Mapping[int, Sequence[Any]]) -> dict[tuple[int, str], Exception]:
    """Filter ``instance.resps`` of docs into ``instance.filtered_resps``. Returns by doc and filter what a filter raised.

    A filter has all docs at once, as in the harness, and of those that it cannot take all others at once. What it has not answered
    is missing on the instance. Raises `core.errors.SteelyardError` where that is no doc's fault.
    """
    docs = list(by_doc.items())
    given = {id(instance): list(instance.resps) for _, instances in docs for instance in instances}
    for _, instances in docs:
        for instance in instances:
            instance.filtered_resps = {}
    faults: dict[tuple[int, str], Exception] = {}
    for name, apply in _appliers(task).items():
        refused = _applied(_afresh(apply, given), docs)
        faults |= {(doc_id, name): error for doc_id, error in refused.items()}
        for instance in (each for doc_id in refused for each in by_doc[doc_id]):
            instance.filtered_resps = {} if name == ALL else _without(instance.filtered_resps, name)
    for _, instances in docs:
        for instance in instances:
            instance.resps = given[id(instance)]
    return faults


def filter_names(task: Any, by_doc: Mapping[int, Sequence[Any]]) -> list[str]:
    """Return the names of the filters that answered any doc, in the task's order."""
    found = {name: None for instances in by_doc.values() for each in instances for name in each.filtered_resps}
    listed = [chain.name for chain in getattr(task, "_filters", [])]
    return list(dict.fromkeys([*(name for name in listed if name in found), *found]))


def _appliers(task: Any) -> dict[str, Apply]:
    from lm_eval.api.task import ConfigurableTask, Task

    if type(task).apply_filters in (Task.apply_filters, ConfigurableTask.apply_filters) and hasattr(task, "_filters"):
        return {chain.name: chain.apply for chain in task._filters}

    def apply(instances: list[Any]) -> None:
        everything = task._instances
        task._instances = instances
        try:
            task.apply_filters()
        finally:
            task._instances = everything

    return {ALL: apply}


def _afresh(apply: Apply, given: Mapping[int, list[Any]]) -> Callable[[Docs], None]:
    """Return ``apply`` for docs, with their answers as they were given: filters may change them in place."""

    def applied(docs: Docs) -> None:
        instances = [instance for _, group in docs for instance in group]
        for instance in instances:
            instance.resps = list(given[id(instance)])
        apply(instances)

    return applied


def _applied(apply: Callable[[Docs], None], docs: Docs) -> dict[int, Exception]:
    """Apply a filter to all docs that it can take, at once. Returns what it raised for each of the others."""
    error = _error(apply, docs) if docs else None
    if error is None:
        return {}
    if len(docs) > PROBES and all(_error(apply, [each]) for each in docs[:: len(docs) // PROBES]):
        return dict.fromkeys((doc_id for doc_id, _ in docs), error)
    refused = _refused(apply, docs, error)
    rest = [each for each in docs if each[0] not in refused]
    error = _error(apply, rest) if rest else None
    return refused if error is None else refused | dict.fromkeys((doc_id for doc_id, _ in rest), error)


def _refused(apply: Callable[[Docs], None], docs: Docs, error: Exception) -> dict[int, Exception]:
    """Return those of docs, which together raised ``error``, that raise alone; by halving: few calls where they are few."""
    if len(docs) == 1:
        return {docs[0][0]: error}
    found: dict[int, Exception] = {}
    middle = len(docs) // 2
    for half in (docs[:middle], docs[middle:]):
        raised = _error(apply, half)
        if raised is not None:
            found |= _refused(apply, half, raised)
    return found


def _error(apply: Callable[[Docs], None], docs: Docs) -> Exception | None:
    try:
        apply(docs)
    except SteelyardError:
        raise
    except Exception as error:  # a filter's own code raises anything
        return error
    return None


def _without(answers: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in answers.items() if key != name}
