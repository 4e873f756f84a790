"""Hugging Face evaluate's ``code_eval`` in our sandbox, for tasks of the catalogue that load it by that name."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from core.scoring.sandbox.sandbox import Limits, Program, run_programs
from core.scoring.statistics import pass_at_k

LOADS = re.compile(r"""\bload\(\s*["'](?:\w[\w-]*/)?code_eval["']""")


class CodeEval:
    """Stands for ``evaluate.load("code_eval")``: the same arguments and results, the same time-out, and a program's tests apart."""

    def compute(
        self,
        *,
        predictions: Sequence[Sequence[str]],
        references: Sequence[str],
        k: Sequence[int] = (1, 10, 100),
        num_workers: int = 4,  # ours is one a core
        timeout: float = 3.0,
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict[str, Any]]]]]:
        """Run every candidate of ``predictions[doc]`` with the tests ``references[doc]``.

        Returns pass@k, the mean over docs, for each ``k`` that all docs have candidates for; and by doc (candidate, its result).
        Raises `core.errors.UserError` where no sandbox works here.
        """
        programs = [
            Program(code, tests) for codes, tests in zip(predictions, references, strict=True) for code in codes
        ]
        outcomes = iter(run_programs(programs, Limits(cpu_seconds=timeout, seconds=max(10.0, 3 * timeout))))
        results: dict[int, list[tuple[int, dict[str, Any]]]] = {}
        for doc, codes in enumerate(predictions):
            results[doc] = []
            for candidate, outcome in zip(range(len(codes)), outcomes, strict=False):
                result = {"passed": outcome.passed, "result": outcome.reason}
                results[doc].append((candidate, {"task_id": doc, "completion_id": candidate, **result}))
        counts = [(len(found), sum(result["passed"] for _, result in found)) for found in results.values() if found]
        known = [size for size in k if counts and all(samples >= size for samples, _ in counts)]
        return {f"pass@{size}": sum(pass_at_k(n, c, size) for n, c in counts) / len(counts) for size in known}, results


@contextmanager
def code_eval_in_sandbox() -> Iterator[None]:
    """Replace ``evaluate.load("code_eval")`` by ours, which fetches nothing from a hub. For one thread at a time.

    evaluate, which takes six seconds to import, is imported by its users alone.
    """
    hook = _EvaluateHook()
    if "evaluate" in sys.modules:
        hook.take_over(sys.modules["evaluate"])
    else:
        sys.meta_path.insert(0, hook)
    try:
        yield
    finally:
        hook.end()


class _EvaluateHook(MetaPathFinder):
    """Takes the module evaluate over as soon as it is imported."""

    def __init__(self) -> None:
        self._given_back: list[Callable[[], None]] = []

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "evaluate":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_take_over(module: ModuleType) -> None:
            run(module)
            self.take_over(module)

        spec.loader.exec_module = run_and_take_over  # type: ignore[method-assign]
        return spec

    def take_over(self, module: ModuleType) -> None:
        names = vars(module)
        load = names["load"]

        def ours(path: str, *args: Any, **kwargs: Any) -> Any:
            return CodeEval() if path.rpartition("/")[2] == "code_eval" else load(path, *args, **kwargs)

        names["load"] = ours
        self._given_back.append(lambda: names.update(load=load))

    def end(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for give_back in self._given_back:
            give_back()


def loads_code_eval(config: Mapping[str, Any]) -> bool:
    """Return whether modules that load ``code_eval`` score the task of a YAML, functions as ``folder/module.name``.

    Nothing is imported.
    """
    functions = [Path(function) for function in _scorers(config.get) if isinstance(function, str)]
    sources = [_source(function) for function in functions if "." in function.name]  # others are metrics of lm-eval
    return bool(sources) and all(source and LOADS.search(source.read_text(encoding="utf-8")) for source in sources)


def runs_in_sandbox(task: Any) -> bool:
    """Return whether modules that hold our ``code_eval`` score a loaded lm-eval task."""
    modules = [getattr(f, "__globals__", {}) for f in _scorers(task.get_config) if callable(f)]
    return bool(modules) and all(any(isinstance(value, CodeEval) for value in names.values()) for names in modules)


def _scorers(get: Callable[[str], Any]) -> list[Any]:
    """Return the functions that score a task: its ``process_results`` or else its metrics."""
    whole = get("process_results")
    return [whole] if whole else [entry.get("metric") for entry in get("metric_list") or []]


def _source(function: Path) -> Path | None:
    """File of a function's module: beside the YAML or, as in lm-eval, an installed one."""
    module = function.name.rpartition(".")[0]
    beside = function.parent / f"{module.replace('.', '/')}.py"
    if beside.is_file():
        return beside
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(found.origin) if found is not None and found.origin and found.origin.endswith(".py") else None
