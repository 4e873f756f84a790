"""The referents of names in a task YAML: entries of lm-eval's registries, and ``!function module.name``.

Functions are looked up in the module's source: nothing of theirs is imported or run.
"""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import nearest
from core.python_source import parse
from core.yaml_file import FunctionName, Keys

# A module that calls one of these may bind names that its source does not show.
RUN_TIME = {"globals", "vars", "setattr", "exec"}
# What lm-eval looks for in Hugging Face's evaluate when its own registry has no such metric.
HF_METRICS = frozenset(
    re.findall(
        r"\w+",
        "accuracy bertscore bleu bleurt brier_score cer character charcut_mt chrf code_eval comet competition_math coval cuad "
        "exact_match f1 frugalscore glue google_bleu indic_glue mae mahalanobis mape mase matthews_correlation mauve mean_iou "
        "meteor mse nist_mt pearsonr perplexity poseval precision r_squared recall rl_reliability roc_auc rouge sacrebleu sari "
        "seqeval smape spearmanr squad squad_v2 super_glue ter trec_eval wer wiki_split xnli xtreme_s",
    )
)


@cache
def registered(what: str) -> frozenset[str]:
    """Return lm-eval's names of a ``metric`` or ``aggregation``, or of a ``metric_agg``: a metric that brings its aggregation."""
    from lm_eval.api import metrics as _registers  # noqa: F401
    from lm_eval.api import registry

    return frozenset(getattr(registry, f"{what}_registry").keys())


@cache
def filters() -> dict[str, tuple[str, ...] | None]:
    """Return the names of lm-eval's filters, and of the options each takes: None where it takes any."""
    from lm_eval import filters as _registers  # noqa: F401
    from lm_eval.api.registry import filter_registry

    found: dict[str, tuple[str, ...] | None] = {}
    for name in filter_registry:
        parameters = inspect.signature(filter_registry.get(name)).parameters.values()
        anything = any(each.kind is each.VAR_KEYWORD for each in parameters)
        found[name] = None if anything else tuple(each.name for each in parameters)
    return found


def samplers() -> Collection[str]:
    """Return the names of lm-eval's few-shot samplers."""
    from lm_eval.api.samplers import SAMPLER_REGISTRY

    return frozenset(SAMPLER_REGISTRY)


def functions_in(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, FunctionName]]:
    """Walk through a YAML's values for its functions, each with the keys that lead to it."""
    if isinstance(value, FunctionName):
        yield keys, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from functions_in(each, (*keys, key))
    elif isinstance(value, list):
        for position, each in enumerate(value):
            yield from functions_in(each, (*keys, position))


def function_fault(function: FunctionName) -> str | None:
    """Return why ``module.name`` cannot be imported, None where it can.

    As in lm-eval a file beside the YAML goes before an installed module.
    """
    module, _, name = function.written.rpartition(".")
    if not module:
        return "write module.function, say utils.process_docs"
    source = source_of(module, function.folder)
    if source is None:
        files = [path.stem for path in function.folder.glob("*.py")]
        return f"there is no {module}.py beside the YAML and no such module installed{nearest(module, files)}"
    if source.suffix != ".py":
        return None  # compiled: cannot be looked into
    names = _names(source, source.stat().st_mtime_ns)
    if names.fault is None and name not in names.defined and not names.hidden:
        where = source.name if source.name != "__init__.py" else f"{module}/__init__.py"
        return f"{where} defines no {name!r}{nearest(name, names.defined)}"
    return names.fault


def registered_by(function: FunctionName) -> frozenset[str]:
    """Names of filters, metrics and aggregations that the module of ``module.name`` registers when it is imported."""
    source = source_of(function.written.rpartition(".")[0], function.folder)
    if source is None or source.suffix != ".py":
        return frozenset()
    return _names(source, source.stat().st_mtime_ns).registered


@dataclass(frozen=True)
class _Names:
    defined: frozenset[str] = frozenset()
    registered: frozenset[str] = frozenset()
    hidden: bool = False  # binds more than its source shows
    fault: str | None = None


@lru_cache(maxsize=1024)
def _names(source: Path, _modified: int) -> _Names:
    try:
        with warnings.catch_warnings():  # of old escapes in other people's code
            warnings.simplefilter("ignore")
            tree = parse(source.read_bytes())
    except SyntaxError as error:
        return _Names(fault=f"{source.name} line {error.lineno}: {error.msg}")
    defined = frozenset(_defined(tree.body))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    registered = {
        str(each.value)
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id.startswith("register_")
        for each in [*call.args, *(keyword.value for keyword in call.keywords)]
        if isinstance(each, ast.Constant)
    }
    called = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    hidden = bool(defined & {"*", "__getattr__"} or called & RUN_TIME)
    missing = next((name for name in _needed(tree.body) if not _is_there(name, source.parent)), None)
    fault = f"{source.name} imports {missing!r}, which is not installed: install it" if missing else None
    return _Names(defined, frozenset(registered), hidden, fault)


def _needed(body: list[ast.stmt]) -> Iterator[str]:
    """Packages without which a module cannot be imported: those of its plain imports, and of a ``try`` that raises again."""
    for statement in body:
        match statement:
            case ast.Import(names=names):
                yield from (alias.name.split(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.split(".")[0]
            case ast.Try(body=inner, handlers=handlers):
                if all(isinstance(node, ast.Raise) for handler in handlers for node in handler.body[-1:]):
                    yield from _needed(inner)


def _is_there(package: str, folder: Path) -> bool:
    if (folder / f"{package}.py").is_file() or (folder / package).is_dir():
        return True
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # ValueError: in sys.modules without a spec
        return True


def source_of(module: str, folder: Path) -> Path | None:
    """Return the file of a module that a YAML in ``folder`` names, None where there is none."""
    beside = folder / f"{module.replace('.', '/')}.py"
    return beside if beside.is_file() else _installed(module)


def _installed(module: str) -> Path | None:
    """File of an installed module, its parents not imported."""
    root, *rest = module.split(".")
    try:
        found = find_spec(root)
    except (ImportError, ValueError):  # ValueError: in sys.modules without a spec
        return None
    if found is None:
        return None
    folders = [Path(folder) for folder in found.submodule_search_locations or []]
    source = Path(found.origin) if found.origin and found.has_location else None
    for part in rest:
        candidates = [each for folder in folders for each in (folder / part / "__init__.py", folder / f"{part}.py")]
        compiled = [each for folder in folders for each in folder.glob(f"{part}.*") if each.suffix in (".so", ".pyd")]
        source = next((each for each in [*candidates, *compiled] if each.is_file()), None)
        folders = [folder / part for folder in folders if (folder / part).is_dir()]
    return source


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    """Names a module binds, also inside ``if``, ``try``, ``for`` and ``with``; ``*`` where it takes all of another module."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
                continue
            case ast.Import(names=names):
                yield from (alias.asname or alias.name.split(".")[0] for alias in names)
            case ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name for alias in names)
            case ast.Assign() | ast.AnnAssign():
                yield from (node.id for node in ast.walk(statement) if isinstance(node, ast.Name))
        for field in ("body", "orelse", "finalbody"):
            yield from _defined(getattr(statement, field, []))
        for handler in getattr(statement, "handlers", []):
            yield from _defined(handler.body)
