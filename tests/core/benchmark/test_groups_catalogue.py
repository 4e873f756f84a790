"""Every group and tag of the catalogue, from YAML alone: its row is all of its tasks, and the harness's number where it has one."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import pytest

from core.benchmark.find import entries
from core.benchmark.groups import group_scores
from core.benchmark.load import _as_harness, _factory
from core.benchmark.scoring import read_scores
from core.catalogue.index import Entry, Leaf, MemberError, leaves
from core.sample import Score
from core.scoring.headline import headline
from core.yaml_file import FunctionName

Groups = Mapping[str, Any]  # lm-eval's, by name


def builder(known: Mapping[str, Entry]) -> Callable[[str], tuple[Groups, list[str]]]:
    """Return what builds lm-eval's groups of a name by its own factory, of tasks that are but names, and those names."""
    registry = _as_harness(known)

    class OfNames(_factory()):  # type: ignore[misc]
        def _load_full_config(self, entry: Any, overrides: Any = None) -> dict[str, Any]:
            return {**resolved(known[entry.name].config or {}), **(overrides or {})}

        def _build_task(self, entry: Any, overrides: Any) -> Any:
            return named_task()({"task": entry.name, **(overrides or {})})

    def build(name: str) -> tuple[Groups, list[str]]:
        found = OfNames().build(registry[name], overrides=None, registry=registry)
        if isinstance(found, list):
            return {}, [task.task_name for task in found]
        groups = {each.name: each for each in [found, *found.get_all_groups()]}
        return groups, [task.task_name for task in found.get_all_tasks()]

    return build


def resolved(value: Any) -> Any:
    """Put some function for each that a YAML names, as the harness has them when it builds groups."""
    if isinstance(value, Mapping):
        return {key: resolved(each) for key, each in value.items()}
    if isinstance(value, list):
        return [resolved(each) for each in value]
    return len if isinstance(value, FunctionName) else value


@cache
def named_task() -> Any:
    """A class of lm-eval's tasks that have a name and nothing else."""
    from lm_eval.api.task import Task

    class Named(Task):
        def __init__(self, config: Mapping[str, Any]) -> None:
            self._name = str(config["task"])

        @property
        def task_name(self) -> str:
            return self._name

    Named.__abstractmethods__ = frozenset()
    return Named


def results_of(leaf: Leaf, dice: random.Random) -> dict[str, Any]:
    """Results of a task as the harness keeps them: numbers that no other task has."""
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY

    kind = leaf.config.get("output_type") or "generate_until"
    metrics = [str(each["metric"]) for each in leaf.config.get("metric_list") or []] or DEFAULT_METRIC_REGISTRY[kind]
    filters = [str(each["name"]) for each in leaf.config.get("filter_list") or []] or ["none"]
    found: dict[str, Any] = {"name": leaf.name, "sample_len": dice.randint(1, 999)}
    for metric in metrics:
        for filter_ in filters:
            found |= {f"{metric},{filter_}": dice.random(), f"{metric}_stderr,{filter_}": dice.random()}
    return found


def scores_of(leaf: Leaf, found: Mapping[str, Any]) -> list[Score]:
    keys = [key for key in found if "," in key and "_stderr," not in key]
    listed = leaf.config.get("metric_list") or []
    better = {str(each["metric"]): each.get("higher_is_better") for each in listed}
    return read_scores(leaf.name, found, dict.fromkeys(keys, found["sample_len"]), better, keys[0])


def faults(name: str, groups: Groups, found: Mapping[str, Leaf], dice: random.Random) -> Iterator[str]:
    """Yield what is wrong with the rows of a name and its groups."""
    from lm_eval.evaluator_utils import EvalAcc, aggregate_groups

    metrics: Any = {task: results_of(leaf, dice) for task, leaf in found.items()}
    scores = [score for task, leaf in found.items() for score in scores_of(leaf, metrics[task])]
    theirs: Any = aggregate_groups(EvalAcc(metrics=metrics, groups=dict(groups))).metrics
    rows = list(group_scores(groups, theirs, scores))
    covered = {row.task: {task.task_name for task in groups[row.task].get_all_tasks()} for row in rows}
    for row in rows:
        key = f"{row.metric},{row.filter}"
        if row.value != theirs[row.task][key]:
            yield f"{row.task} {key} is not the harness's"
        if row.docs != sum(metrics[task]["sample_len"] for task in covered[row.task] if key in metrics[task]):
            yield f"{row.task} {key} over {row.docs} docs"
    head, remark = headline(name, [*scores, *rows])
    if head.docs != sum(metrics[task]["sample_len"] for task in found):
        yield f"{head.docs} docs"
    if len(found) == 1:
        return
    if head.task != name:
        yield f"the row of {head.task}"
    parts = [row.value for row in rows if covered[row.task] < found.keys()]
    if head.value in [*parts, *(score.value for score in scores)]:
        yield "the number of a part"
    whole = [
        theirs[name][key] for key in theirs.get(name, {}) if "," in key and all(key in metrics[task] for task in found)
    ]
    yield from (
        faults_of_mean(head, remark, scores) if not whole else [] if head.value in whole else ["not the harness's"]
    )


def faults_of_mean(head: Score, remark: str, scores: Iterable[Score]) -> Iterator[str]:
    """Yield what is wrong with a row that the harness does not have."""
    if not remark:
        yield "nothing said of how it came about"
    primary = [score for score in scores if score.primary]
    alike = {(score.metric, score.higher_is_better) for score in primary}
    if len(alike) == 1 and not math.isclose(head.value, sum(score.value for score in primary) / len(primary)):
        yield "not the mean of its tasks"


def test_no_group_or_tag_of_the_catalogue_shows_a_part_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import _factory

    monkeypatch.setattr(_factory, "ConfigurableTask", named_task())  # for tasks defined where they are listed
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    known, dice, seen, wrong = entries(), random.Random(3), 0, []
    build = builder(known)
    for name, entry in known.items():
        if entry.kind not in ("group", "tag"):
            continue
        try:
            found = {leaf.name: leaf for leaf in leaves(known, name)}
        except MemberError:
            continue  # refused before anything starts
        groups, tasks = build(name)
        assert list(found) == list(dict.fromkeys(tasks)), name
        if any(leaf.kind == "python" for leaf in found.values()):
            continue  # its metrics are in its code
        wrong += [f"{name}: {fault}" for fault in faults(name, groups, found, dice)]
        seen += 1
    assert not wrong, f"{len(wrong)} faults, the first: {wrong[:10]}"
    assert seen > 1_400
