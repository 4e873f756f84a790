"""The check of a benchmark's ``metadata``: arguments that the code of its tasks reads."""

from __future__ import annotations

from collections.abc import Iterable

from core.catalogue.arguments import TOKENIZER, Reads, reads
from core.catalogue.index import Leaf
from core.errors import UserError, nearest
from core.spec.parts import BenchmarkSpec, benchmark_label
from core.yaml_file import FunctionName


def check_metadata(spec: BenchmarkSpec, leaves: Iterable[Leaf]) -> None:
    """Raise `core.errors.UserError` where no task of the benchmark reads an argument, or its YAML sets it already.

    A misspelt one would be passed over in silence, and the docs made without it.
    """
    if not spec.metadata:
        return
    where = f"benchmark {benchmark_label(spec)!r}: metadata"
    taking = [leaf for leaf in leaves if leaf.kind == "python" or _reads(leaf)]
    if not taking:
        raise UserError(f"{where}: no code of its tasks takes arguments (custom_dataset): leave it out")
    for name in spec.metadata:
        for leaf in taking:
            if name in (leaf.config.get("dataset_kwargs") or {}):
                raise UserError(f"{where}.{name}: dataset_kwargs of {leaf.name!r} sets it already: leave it out")
        found = [each for leaf in taking if (each := _reads(leaf))]
        if len(found) == len(taking) and not any(each.passed_on or name in each.names for each in found):
            known = sorted({each for one in found for each in one.names if each.isidentifier()})
            raise UserError(f"{where}.{name}: no code of its tasks reads it{nearest(name, [*known, *TOKENIZER])}")


def _reads(leaf: Leaf) -> Reads | None:
    function = leaf.config.get("custom_dataset")
    return reads(function) if isinstance(function, FunctionName) else None
