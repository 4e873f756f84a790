"""Targets of docs, looked at before an engine starts: null ones, and those that are none of a doc's choices (lm-eval 0.4.13)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from core.errors import UserError, reason_of


@dataclass(frozen=True)
class Target:
    """A doc's target: its text, empty where the task cannot give one, and why the doc cannot be right; None where it can."""

    text: str
    fault: str | None = None


def count_in_whole_numbers(task: Any) -> None:
    """Have an lm-eval task give the number of the right choice as a whole one.

    A column of numbers with a gap in it comes out of CSV as floats, and the harness uses the number as an index.
    """
    if task.get_config("doc_to_choice") is None or not _scored_by_harness(task):
        return
    given = task.doc_to_target
    task.doc_to_target = lambda *arguments, **options: _whole(given(*arguments, **options))


def _whole(target: Any) -> Any:
    if isinstance(target, float) and target.is_integer():
        return int(target)
    return [_whole(each) for each in target] if isinstance(target, list) else target


@contextmanager
def targets_unread(task: Any) -> Iterator[None]:
    """Have an lm-eval task build prompts within the block without the targets of the docs it asks: the harness reads them in vain.

    Those of few-shot examples are needed, and so are targets that are asked about.
    """
    from lm_eval.api.task import ConfigurableTask

    kinds = ("generate_until",) if getattr(task, "multiple_input", 0) else ("generate_until", "multiple_choice")
    if type(task).fewshot_context is not ConfigurableTask.fewshot_context or task.OUTPUT_TYPE not in kinds:
        yield
        return
    given = task.doc_to_target

    def asked(doc: Any, *shown: Any, **options: Any) -> Any:  # of examples the harness says how they are shown
        if shown or options:
            return given(doc, *shown, **options)
        with suppress(Exception):  # it is told by `targets_of`
            return given(doc)

    task.doc_to_target = asked
    try:
        yield
    finally:
        task.doc_to_target = given


@contextmanager
def first_target_untried() -> Iterator[None]:
    """Have lm-eval load tasks in this thread whose first target is no choice, or cannot be made: that costs a doc, not the task."""
    from lm_eval.api.task import ConfigurableTask

    given, loading = ConfigurableTask.doc_to_target, {threading.get_ident()}

    def tried(task: Any, doc: Any, *arguments: Any) -> Any:
        if threading.get_ident() not in loading:
            return given(task, doc, *arguments)
        with suppress(Exception):  # it is told by `targets_of`
            target = given(task, doc, *arguments)
            if not isinstance(target, int) or task.config.doc_to_choice is None:
                return target
            return target if target < len(task.doc_to_choice(doc)) else None
        return None

    ConfigurableTask.doc_to_target = tried
    try:
        yield
    finally:
        ConfigurableTask.doc_to_target = given
        loading.clear()  # another thread may have got hold of the method meanwhile


def targets_of(task: Any) -> dict[int, Target]:
    """Return the targets of a task's docs, by doc id; its requests are built."""
    docs: dict[int, list[Any]] = {}
    for instance in task.instances:
        docs.setdefault(instance.doc_id, []).append(instance)
    return {doc_id: target_of(task, instances[0].doc, len(instances)) for doc_id, instances in docs.items()}


def target_of(task: Any, doc: Any, requests: int | None = None) -> Target:
    """Return the target of one doc. ``requests`` is how many are asked of it, where they are built."""
    try:
        target = task.doc_to_target(doc)
    except Exception as error:  # a task's own templates and functions raise anything
        return Target("", f"its target cannot be read: {reason_of(error)}")
    if not _scored_by_harness(task):  # it may have no use for the target, or for another one
        return Target(str(target))
    if task.get_config("doc_to_choice") is not None:
        return Target(str(target), _choice_fault(task, doc, target, requests))
    reads = task.OUTPUT_TYPE == "generate_until"
    return Target(str(target), "its target is null" if reads and target is None else None)


def _scored_by_harness(task: Any) -> bool:
    """Return whether the harness's own code scores a task's docs."""
    from lm_eval.api.task import ConfigurableTask

    by_class = type(task).process_results is ConfigurableTask.process_results
    return by_class and task.get_config("process_results") is None


def _choice_fault(task: Any, doc: Any, target: Any, requests: int | None) -> str | None:
    if getattr(task, "multiple_input", 0):
        target = task.doc_to_text(doc)
    wanted = target if isinstance(target, list) else [target]
    try:
        # Choices are built for each request already; they are built once more where their text is needed.
        asked = _choices_asked(task, requests) if all(isinstance(each, int) for each in wanted) else None
        choices = task.doc_to_choice(doc) if asked is None else range(asked)
    except Exception as error:  # as above
        return f"its choices cannot be read: {reason_of(error)}"
    wrong = [each for each in wanted if not _is_choice(each, choices)]
    if wrong or not wanted:
        return (
            f"its target is not one of the choices ({wrong[0]!r})" if wrong else "its target is not one of the choices"
        )
    return None


def _choices_asked(task: Any, requests: int | None) -> int | None:
    """Return how many choices a doc has by its requests, None where they do not tell; mutual information asks for each twice."""
    if requests is None or task.OUTPUT_TYPE != "multiple_choice":
        return None
    return requests // 2 if "acc_mutual_info" in task._metric_fn_list else requests


def _is_choice(target: Any, choices: Sequence[Any]) -> bool:
    if isinstance(target, str):
        return target in choices
    return hasattr(target, "__index__") and 0 <= target < len(choices)


def faults_in_words(name: str, targets: Mapping[int, Target]) -> list[str]:
    """Return ``doc <id> of <name>: <fault>`` of each target that has one."""
    return [f"doc {doc_id} of {name}: {target.fault}" for doc_id, target in targets.items() if target.fault]


def refuse_hopeless(benchmark: str, name: str, task: Any, targets: Mapping[int, Target]) -> None:
    """Raise `core.errors.UserError` where no doc of a task has a right choice, as in a split without labels, or any target."""
    faults = faults_in_words(name, targets)
    none_is_right = task.get_config("doc_to_choice") is not None or all(not target.text for target in targets.values())
    if none_is_right and faults and len(faults) == len(targets):
        raise UserError(
            f"benchmark {benchmark!r}: no doc of {name!r} can be answered right; {faults[0]}: correct doc_to_target, or evaluate "
            "a split that has labels"
        )


def doubt_of(label: str, faults: Sequence[str], docs: int) -> str:
    """Return a line for people on the targets of a benchmark's docs that are not right."""
    return (
        f"{label}: {len(faults):,} of {docs:,} docs cannot be answered right, and count as wrong or not at all; the first: "
        f"{faults[0]}"
    )
