"""A task's ``generation_kwargs`` as `core.request.Sampling`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.campaign import SamplingSpec
from core.request import Sampling

DEFAULT_MAX_TOKENS = 256  # of lm-eval's backends
MAX_TOKEN_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


def sampling_of(generation: Mapping[str, Any], override: SamplingSpec) -> Sampling:
    """Translate a task's ``generation_kwargs`` as lm-eval's backends do, then apply the campaign's overrides."""
    given = dict(generation)
    until = given.pop("until", None) or []
    limits = [given.pop(name, None) for name in MAX_TOKEN_NAMES]
    do_sample = given.pop("do_sample", None)
    temperature = float(given.pop("temperature", None) or 0.0)
    if do_sample is False:
        temperature = 0.0
    elif do_sample and not temperature:
        temperature = 1.0
    values: dict[str, Any] = {
        "until": tuple([until] if isinstance(until, str) else until),
        "max_tokens": int(next((limit for limit in limits if limit is not None), DEFAULT_MAX_TOKENS)),
        "temperature": temperature,
        **{name: given.pop(name) for name in ("top_p", "top_k", "min_p", "seed") if given.get(name) is not None},
    }
    chosen = override.model_dump(exclude_none=True)
    if "until" in chosen:
        chosen["until"] = tuple(chosen["until"])
    return Sampling(**{**values, **chosen}, extra=given)
