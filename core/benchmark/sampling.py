"""Generation settings of a request: the task's own, read as lm-eval's backends read them, under the campaign's overrides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.catalogue.generation import read_generation
from core.request import Sampling
from core.spec.parts import SamplingSpec

OWN = ("top_p", "top_k", "min_p", "seed")  # of vLLM's settings, those that `core.request.Sampling` has fields for


def sampling_of(generation: Mapping[str, Any], override: SamplingSpec) -> Sampling:
    """Translate a task's ``generation_kwargs``, then apply the campaign's overrides.

    A temperature that is not stated is 1, vLLM's own, with ``do_sample: true``, and 0 otherwise; one that is stated stays, but for
    ``do_sample: false``, with which it is 0. Raises `core.errors.UserError` where vLLM lacks a setting.
    """
    given = read_generation(generation)
    until, longest, sampled = given.pop("until"), given.pop("max_gen_toks"), given.pop("do_sample")
    values: dict[str, Any] = {
        "until": tuple(until),
        "max_tokens": longest,
        "temperature": float(given.pop("temperature", 1.0 if sampled else 0.0)),
        **{name: given.pop(name) for name in OWN if name in given},
    }
    chosen = override.model_dump(exclude_none=True)
    if "until" in chosen:
        chosen["until"] = tuple(chosen["until"])
    return Sampling(**{**values, **chosen}, extra=given)
