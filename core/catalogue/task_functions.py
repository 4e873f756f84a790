"""The referents of names in a task YAML: entries of lm-eval's registries, and ``!function module.name``.

Functions are looked up in the module's source: nothing of theirs is imported or run.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from core.catalogue.imports import missing, shipped, source_of
from core.catalogue.modules import module_of, names_of
from core.catalogue.packages import pip_install
from core.errors import nearest
from core.yaml_file import FunctionName, Keys

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
    if fault := module_of(source).fault:
        return fault
    names = names_of(source)
    if name not in names.defined and not names.hidden:
        where = source.name if source.name != "__init__.py" else f"{module}/__init__.py"
        return f"{where} defines no {name!r}{nearest(name, names.defined)}"
    return _import_fault(source, source.parent if source.is_relative_to(function.folder) else None, name)


def registered_by(function: FunctionName) -> frozenset[str]:
    """Names of filters, metrics and aggregations that the module of ``module.name`` registers when it is imported."""
    source = source_of(function.written.rpartition(".")[0], function.folder)
    if source is None or source.suffix != ".py":
        return frozenset()
    return names_of(source).registered


def _import_fault(source: Path, folder: Path | None, function: str) -> str | None:
    lacking = missing(source, folder, function)
    if not lacking:
        return None
    first = lacking[0]
    where = first.importer.name if first.importer == source else f"{first.importer.name} (by way of {source.name})"
    if first.fault:
        return first.fault if first.importer == source else f"{first.fault} (imported by {where})"
    names = [each.name for each in lacking if each.importer == first.importer and not each.fault]
    *most, last = map(repr, names)
    told = f"{where} imports {', '.join(most)} and {last}, which are" if most else f"{where} imports {last}, which is"
    if any("." in name for name in names):  # part of something that is there
        return f"{told} not there: correct the import"
    siblings = [path.stem for path in source.parent.glob("*.py") if not shipped(path) and path != first.importer]
    if folder is not None and (meant := nearest(names[0], siblings)):
        return f"{told} neither beside it nor installed{meant}"
    return f"{told} not installed: {pip_install([each.name for each in lacking if '.' not in each.name])}"
