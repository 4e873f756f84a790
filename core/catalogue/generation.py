"""Generation settings of a task: what of its ``generation_kwargs`` vLLM takes, under lm-eval's names and its own.

vLLM's names and types are read from its source. Where it is not installed, as where pools do the work, any name is taken.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from core.catalogue.kinds import any_of
from core.errors import UserError, nearest
from core.python_source import declared_fields
from core.strict import Fault, faults, shown, where_of
from core.yaml_file import Keys

# As far as vLLM goes: it refuses a request with more or less.
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(ge=-1)]
MinP = Annotated[float, Field(ge=0, le=1)]
BOUNDED: dict[str, Any] = {
    "temperature": Temperature,
    "top_p": TopP,
    "top_k": TopK,
    "min_p": MinP,
    "repetition_penalty": Annotated[float, Field(gt=0)],
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), Annotated[float, Field(ge=-2, le=2)]),
    "min_tokens": Annotated[int, Field(ge=0)],
}
LIMIT = Annotated[int, Field(ge=1)]
FIELD = "generation_kwargs"
OF_HARNESS = ("until", "do_sample")
# Of Hugging Face's beam search, which vLLM lacks: one beam is none, and without beams nothing stops early.
BEAMS, OF_BEAMS = "num_beams", ("num_beams", "early_stopping")
# Kinds that a YAML can write, by vLLM's annotations.
PLAIN = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


def read_generation(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``generation_kwargs`` as lm-eval's backends read them.

    ``until``, ``max_gen_toks`` and ``do_sample`` are there, and vLLM's settings by its own names where they are stated. What is
    null is not stated. Raises `core.errors.UserError` where vLLM has no such setting.
    """
    from lm_eval.models.utils import normalize_gen_kwargs

    if fault := next(generation_faults(generation), None):
        raise UserError(fault.message)
    stated = {name: value for name, value in generation.items() if value is not None and name not in OF_BEAMS}
    return dict(normalize_gen_kwargs(stated))


def generation_faults(generation: Mapping[str, Any], keys: Keys = ()) -> Iterator[Fault]:
    """Return what vLLM would refuse of ``generation_kwargs``; ``keys`` leads to the mapping that has the field."""
    for name, value in generation.items():
        here = (*keys, FIELD, name)
        if fault := _fault(str(name), value):
            yield Fault(here, f"{where_of(here)} = {shown(value)}: {fault}")
        elif kind := _kind(str(name)):
            try:
                kind.validate_python(_number(value) if name == "temperature" else value)
            except ValidationError as error:
                yield from faults(error, here)


def _fault(name: str, value: Any) -> str | None:
    known = _kinds()
    if name == BEAMS:
        single = value is None or (value == 1 and not isinstance(value, bool))
        return None if single else "vLLM searches no beams: use 1, or leave it out"
    if name in (*OF_HARNESS, *OF_BEAMS) or _is_limit(name):
        return None
    if name == "stop":
        return "lm-eval names it until: write it so"
    if name == "temperature" and value is None:
        return "use a number, or leave it out"
    if known and name not in known:
        return f"vLLM has no such setting{nearest(name, [*known, *OF_HARNESS])}; leave it out"
    if known and known[name] is None:
        return "a YAML cannot say it: leave it out"
    return None


def _number(value: Any) -> Any:
    """Return a temperature in quotes as the number that lm-eval makes of it."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@cache
def _is_limit(name: str) -> bool:
    """Whether lm-eval takes a name for the longest answer's."""
    from lm_eval.models.utils import normalize_gen_kwargs

    longest = 7
    return bool(normalize_gen_kwargs({name: longest}, longest + 1)["max_gen_toks"] == longest)


@cache
def _kind(name: str) -> TypeAdapter[Any] | None:
    bounded = LIMIT if _is_limit(name) else BOUNDED.get(name)
    kind: Any = bounded | None if bounded else _kinds().get(name)  # null is not stated
    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False)) if kind else None


@cache
def _kinds() -> dict[str, Any]:
    """Return vLLM's names, each with the type of its values; None where no plain value is one. Empty where there is no vLLM."""
    fields = declared_fields("vllm", "sampling_params.py", ("SamplingParams",))
    return {name: _any_of(_names(annotation)) for name, annotation in fields.items()}


def _any_of(names: set[str]) -> Any:
    known = [PLAIN[name] for name in names if name in PLAIN]
    return any_of(*known) if known else None


def _names(annotation: ast.expr) -> set[str]:
    """Names of the types that an annotation joins with ``|``, of ``list[str]`` the first."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            return _names(left) | _names(right)
        case ast.Subscript(value=ast.Name(id=name)) | ast.Name(id=name):
            return {name}
    return set()
