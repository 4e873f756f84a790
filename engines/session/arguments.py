"""Names of vLLM's engine arguments, read from its source: vLLM takes ten seconds to import, and a wrong name should cost none."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from core.campaign import ModelSpec
from core.errors import UserError, nearest
from core.python_source import parse

STREAMER = ("runai_model_streamer", "runai_model_streamer_s3")
CLASSES = ("EngineArgs", "AsyncEngineArgs")


def check_arguments(models: Iterable[ModelSpec]) -> None:
    """Raise `core.errors.UserError` with a line for each thing asked of a model that the installed vLLM cannot do.

    An argument that it does not know, or streaming without its streamer.
    """
    known = known_arguments()
    wrong = [
        f"model {model.name!r}: vllm.{name} = {value!r}: vLLM has no such engine argument{nearest(name, known)}; leave it out"
        for model in models
        for name, value in model.vllm.items()
        if known and name not in known
    ]
    if known and not all(map(find_spec, STREAMER)):
        wrong += [
            f"model {model.name!r}: stream_weights needs vLLM's streamer: pip install 'steelyard[stream]', or leave it out"
            for model in models
            if model.stream_weights
        ]
    if wrong:
        raise UserError("\n".join(wrong))


@cache
def known_arguments() -> frozenset[str]:
    """Return the fields of ``AsyncEngineArgs``; empty where vLLM is not installed, as where pools do the work."""
    package = find_spec("vllm")
    source = Path(package.origin or "").parent / "engine/arg_utils.py" if package else None
    if source is None or not source.is_file():
        return frozenset()
    module = parse(source.read_text(encoding="utf-8"))
    classes = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name in CLASSES]
    return frozenset(
        entry.target.id
        for each in classes
        for entry in each.body
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name) and entry.target.id[0] != "_"
    )
