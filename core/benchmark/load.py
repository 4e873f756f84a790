"""A benchmark's tasks, loaded by lm-evaluation-harness with their datasets, and the few-shot examples that they draw."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from core.benchmark import beside
from core.benchmark.code_metrics import code_eval_in_sandbox
from core.benchmark.datasets.made import in_place, look_for_made
from core.benchmark.datasets.route import Route, install
from core.benchmark.find import scope_of
from core.benchmark.heard import listen
from core.benchmark.loading import LOADING
from core.benchmark.targets import first_target_untried
from core.catalogue.index import Entry
from core.errors import UserError, nearest, reason_of, root_of
from core.spec.parts import BenchmarkSpec
from core.yaml_file import FunctionName

MOST_FIRST = 256  # few-shot examples to show the first of: each doc is looked for among them


def load_tasks(
    name: str,
    route: Route | None = None,
    metadata: Mapping[str, Any] | None = None,
    made: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build lm-eval's tasks and groups of a benchmark, datasets loaded: (name → Task, name → Group), both fresh.

    ``route`` says where datasets come from, and keeps what was loaded. ``metadata`` goes to the tasks' own code, as lm-eval's
    ``--metadata``; ``made`` has docs by task that were made before (`core.benchmark.datasets.made`). Raises
    `core.errors.UserError` where a dataset cannot be had or the YAML does not work.
    """
    root, scope = scope_of(name)
    manager = _harness()(include_defaults=False, metadata=dict(metadata or {}))
    manager._factory = _factory()(meta=manager.metadata)
    manager.task_index.update(_as_harness(scope))
    route = route or Route()
    with LOADING, route.active(), in_place(made or {}), code_eval_in_sandbox(), first_target_untried():
        try:
            manager.task_index.update(_without_their_makers(scope, made or {}))
            loaded = manager.load(root)
        except UserError as error:
            raise UserError(f"benchmark {name!r} cannot be loaded: {error}") from error
        except Exception as error:  # a task's own code or a dataset's loader raises anything
            raise UserError(f"benchmark {name!r} cannot be loaded: {_told(error, route.splits)}") from error
    return loaded["tasks"], loaded["groups"]


def _told(error: Exception, splits: Sequence[str]) -> str:
    cause = root_of(error)
    if isinstance(cause, KeyError) and splits and (name := str(cause.args[0])) not in splits:
        return f"there is no split {name!r}: its dataset gives {', '.join(map(repr, splits))}{nearest(name, splits)}"
    return reason_of(error)


def show_first_shots(spec: BenchmarkSpec, name: str, task: Any) -> None:
    """Make a task show the first few-shot examples of their split to every doc.

    Raises `core.errors.UserError` where it chooses them by itself.
    """
    from lm_eval.api.samplers import get_sampler

    if getattr(task, "sampler", None) is None:
        raise UserError(
            f"benchmark {spec.name!r}: {name!r} chooses its few-shot examples by itself: leave its fewshot_sampler out"
        )
    task.sampler = get_sampler("first_n")(task.sampler.fewshot_docs()[:MOST_FIRST], rnd=None)


def drawn_shots(task: Any) -> dict[int, Any]:
    """Return a dict whose values will be the few-shot examples that an lm-eval task draws from now on, each once.

    It stays empty for tasks in Python without a sampler.
    """
    drawn: dict[int, Any] = {}
    sampler = getattr(task, "sampler", None)
    if sampler is None:
        return drawn
    sample = sampler.sample

    def keeping(*args: Any, **kwargs: Any) -> Any:
        shots = sample(*args, **kwargs)
        drawn.update({id(shot): shot for shot in shots})  # kept, so that no other object gets its id
        return shots

    sampler.sample = keeping
    return drawn


def _as_harness(scope: Mapping[str, Entry]) -> dict[str, Any]:
    from lm_eval.tasks._index import Entry as HarnessEntry
    from lm_eval.tasks._index import Kind

    kinds = {"task": Kind.TASK, "python": Kind.PY_TASK, "group": Kind.GROUP, "tag": Kind.TAG}
    return {
        entry.name: HarnessEntry(entry.name, kinds[entry.kind], entry.path, tags=set(entry.members or entry.tags))
        for entry in scope.values()
    }


def _without_their_makers(scope: Mapping[str, Entry], made: Mapping[str, Any]) -> dict[str, Any]:
    """Entries for tasks whose docs are there: what made them is not imported here, where it would ask the network and print."""
    from lm_eval.tasks._index import Entry as HarnessEntry
    from lm_eval.tasks._index import Kind

    return {
        name: HarnessEntry(name, Kind.TASK, None, cfg=_resolved({**(entry.config or {}), "custom_dataset": None}))
        for name, entry in scope.items()
        if name in made
    }


def _resolved(value: Any) -> Any:
    """Return a YAML's value with its functions imported, as lm-eval does."""
    from lm_eval.tasks._yaml_loader import _import_func_in_yml

    if isinstance(value, FunctionName):
        return _import_func_in_yml(value.written, value.folder)
    if isinstance(value, Mapping):
        return {key: _resolved(each) for key, each in value.items()}
    return [_resolved(each) for each in value] if isinstance(value, list) else value


@cache
def _factory() -> Any:
    """Return lm-eval's class that builds tasks, of one that keeps every task of a group or tag that is listed with overrides.

    Its own (0.4.13) passes ``{task: mmlu, num_fewshot: 5}`` on whole, so each task of ``mmlu`` gets that name, and the last stays.
    """
    from lm_eval.tasks._factory import TaskFactory

    class Factory(TaskFactory):
        def build(self, entry: Any, *, overrides: dict[str, Any] | None = None, registry: dict[str, Any]) -> Any:
            own = {key: value for key, value in (overrides or {}).items() if key != "task"}
            return super().build(entry, overrides=own, registry=registry)

    return Factory


@cache
def _harness() -> Any:
    """Set lm-eval up for our processes, once. Returns its TaskManager class."""
    # It forks processes for bootstrapped standard errors otherwise; a campaign has threads, which do not survive a fork.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    listen()
    import datasets
    from lm_eval.api import task
    from lm_eval.tasks import TaskManager

    datasets.disable_progress_bars()
    task.tqdm = lambda docs, **_: docs
    beside.install()
    install()
    look_for_made()
    return TaskManager
