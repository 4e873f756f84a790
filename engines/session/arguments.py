"""Names of vLLM's engine arguments, read from its source."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from core.campaign import ModelSpec
from core.errors import UserError, nearest
from core.python_source import declared_fields

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


def known_arguments() -> frozenset[str]:
    """Return the fields of ``AsyncEngineArgs``; empty where vLLM is not installed, as where pools do the work."""
    return frozenset(declared_fields("vllm", "engine/arg_utils.py", CLASSES))
