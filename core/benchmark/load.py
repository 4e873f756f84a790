"""Loading a benchmark's tasks by lm-evaluation-harness, datasets included."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

from core.benchmark.code_metrics import code_eval_in_sandbox
from core.benchmark.datasets.route import Route, install
from core.benchmark.find import scope_of
from core.catalogue.index import Entry
from core.errors import UserError

# Loading a task touches lm-eval's module state: one thread at a time.
LOADING = threading.Lock()


def load_tasks(name: str, route: Route | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build lm-eval's tasks and groups of a benchmark, datasets loaded: (name → Task, name → Group), both fresh.

    ``route`` says where datasets come from, and keeps what was loaded. Raises `core.errors.UserError` where a dataset cannot be had
    or the YAML does not work.
    """
    root, scope = scope_of(name)
    manager = _harness()(include_defaults=False)
    manager.task_index.update(_as_harness(scope))
    with LOADING, (route or Route()).active(), code_eval_in_sandbox():
        try:
            loaded = manager.load(root)
        except UserError as error:
            raise UserError(f"benchmark {name!r} cannot be loaded: {error}") from error
        except Exception as error:  # a task's own code or a dataset's loader raises anything
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise UserError(f"benchmark {name!r} cannot be loaded: {type(error).__name__}: {reason}") from error
    return loaded["tasks"], loaded["groups"]


def _as_harness(scope: Mapping[str, Entry]) -> dict[str, Any]:
    from lm_eval.tasks._index import Entry as HarnessEntry
    from lm_eval.tasks._index import Kind

    kinds = {"task": Kind.TASK, "python": Kind.PY_TASK, "group": Kind.GROUP, "tag": Kind.TAG}
    return {
        entry.name: HarnessEntry(entry.name, kinds[entry.kind], entry.path, tags=set(entry.members or entry.tags))
        for entry in scope.values()
    }


@cache
def _harness() -> Any:
    """Set lm-eval up for our processes, once. Returns its TaskManager class."""
    # It forks processes for bootstrapped standard errors otherwise; a campaign has threads, which do not survive a fork.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    import datasets
    from lm_eval.api import task
    from lm_eval.tasks import TaskManager

    datasets.disable_progress_bars()
    task.tqdm = lambda docs, **_: docs
    install()
    return TaskManager
