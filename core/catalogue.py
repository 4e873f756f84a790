"""Finding benchmarks: bundled ones, lm-evaluation-harness's catalogue, and task YAMLs by path."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import UserError, nearest

BUNDLED = Path(__file__).parent / "benchmarks"
# Indexing the catalogue takes seconds and loading a task touches lm-eval's module state: one thread at a time.
LOADING = threading.Lock()


def bundled() -> dict[str, Path]:
    """Name → YAML of the benchmarks that come with Steelyard; they need no hub, and win over the catalogue's of one name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.yaml"))}


def is_path(name: str) -> bool:
    """Say whether a benchmark is named by the path of its YAML."""
    return name.endswith((".yaml", ".yml"))


def find(name: str) -> dict[str, Any]:
    """Return the parsed YAML of a benchmark, functions unresolved; empty for a name that stands for several tasks.

    Loads no dataset and runs no code of the benchmark. Raises `core.errors.UserError` with the nearest name, or with the line or
    field at fault.
    """
    if is_path(name):
        return _parsed(Path(name))
    if name in bundled():
        return _parsed(bundled()[name])
    with LOADING:
        entry = _manager().task_index.get(name)
    if entry is None:
        known = [*bundled(), *_manager().all_tasks]
        raise UserError(f"benchmark {name!r} is not known{nearest(name, known)}")
    return {} if entry.yaml_path is None or entry.tags == {name} else _parsed(entry.yaml_path)


def load_tasks(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build lm-eval's tasks and groups of a benchmark, datasets loaded: (name → Task, name → Group), both fresh.

    Raises `core.errors.UserError` where a dataset cannot be had or the YAML does not work.
    """
    path = name if is_path(name) else str(bundled().get(name, ""))
    with LOADING:
        config = _parsed(Path(path)) if path else {}
        manager = _manager_for(Path(path), config) if path else _manager()
        try:
            loaded = manager.load(config.get("group") or path or name)  # lm-eval loads a group by its name only
        except UserError:
            raise
        except Exception as error:  # whatever a task's own code or a dataset's loader raises
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise UserError(f"benchmark {name!r} cannot be loaded: {type(error).__name__}: {reason}") from error
    return loaded["tasks"], loaded["groups"]


def _parsed(path: Path) -> dict[str, Any]:
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    if not path.is_file():
        siblings = [entry.name for entry in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise UserError(f"benchmark {str(path)!r}: no such file{nearest(path.name, siblings)}")
    try:
        config = load_yaml(path, resolve_func=False, recursive=True)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise UserError(f"benchmark {str(path)!r}:{where} {getattr(error, 'problem', None) or 'not YAML'}") from error
    except OSError as error:
        raise UserError(f"benchmark {str(path)!r}: cannot read {error.filename}: {error.strerror}") from error
    except ValueError as error:  # lm-eval's word for anything but a mapping, and for files that include each other
        raise UserError(f"benchmark {str(path)!r}: {error}; it needs at least 'task' and 'dataset_path'") from error
    if "group" not in config:
        _check_fields(path, config)
    return dict(config)


def _check_fields(path: Path, config: dict[str, Any]) -> None:
    from lm_eval.config.task import TaskConfig

    known = [*TaskConfig.__dataclass_fields__, "include", "class", "group_alias", "dataset", "kwargs"]
    if "task" not in config:
        raise UserError(f"benchmark {str(path)!r}: field 'task' is missing; name the benchmark with it")
    if "class" in config:  # a Python task takes fields of its own
        return
    for field in config:
        if field not in known:
            line = _line_of(path, str(field))
            raise UserError(f"benchmark {str(path)!r}:{line} unknown field {str(field)!r}{nearest(str(field), known)}")
    kinds = ("generate_until", "loglikelihood", "loglikelihood_rolling", "multiple_choice")
    kind = config.get("output_type", "generate_until")
    if kind not in kinds:
        line = _line_of(path, "output_type")
        raise UserError(
            f"benchmark {str(path)!r}:{line} output_type = {kind!r}: use one of {', '.join(kinds)}{nearest(str(kind), kinds)}"
        )


def _line_of(path: Path, field: str) -> str:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if re.match(rf"{re.escape(field)}\s*:", line):
            return f" line {number}:"
    return ""


def names() -> Iterable[str]:
    """Every name of the catalogue and every bundled one."""
    with LOADING:
        return [*bundled(), *_manager().all_tasks]


def _manager_for(path: Path, config: dict[str, Any]) -> Any:
    """The manager for a YAML by path. A group's members are looked up beside it, then in the (slow) catalogue."""
    if "group" not in config:
        return _manager(include_defaults=False)
    folder = str(path.parent.resolve())
    beside = _manager(folder, include_defaults=False)
    listed = config.get("task") or []
    members = [member for member in ([listed] if isinstance(listed, str) else listed) if isinstance(member, str)]
    return beside if beside.task_index.keys() >= set(members) else _manager(folder)


@cache
def _manager(folder: str | None = None, *, include_defaults: bool = True) -> Any:
    # lm-eval forks processes for bootstrapped standard errors otherwise; a campaign has threads, which do not survive a fork.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    import datasets
    from lm_eval.api import task
    from lm_eval.tasks import TaskManager

    datasets.disable_progress_bars()
    task.tqdm = lambda docs, **_: docs
    return TaskManager(include_path=folder, include_defaults=include_defaults)
