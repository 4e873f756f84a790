"""What vLLM reads from a checkpoint's config: the numbers that placement needs, and the cache that its layers keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ConfigFacts:
    """One config as vLLM's classes and converters read it. Windows in tokens; the cache in bytes of all layers, one copy.

    Bytes of keys and values are at 16 bits where ``kv_dtype`` is "auto", which follows the type a model computes in.
    """

    architecture: str
    dtype: str | None  # as the config names it
    quantization: str | None  # quant_method, as vLLM normalises it
    layers: int
    hidden_size: int
    attention_heads: int  # 0 where nothing attends
    kv_heads: int
    head_dim: int
    experts: int  # 0 where dense
    mla: bool  # latent attention: every tensor-parallel rank holds the whole cache
    window: int  # the largest that vLLM takes, or its default where it takes any
    any_window: bool  # the config states none
    multimodal: bool
    kv_dtype: str  # of the cache: vLLM's name
    kv_bytes: int  # per token, of layers that keep every token
    sliding_bytes: int  # per token, of layers that keep a window of tokens
    sliding_window: int  # 0 where no layer slides
    state_bytes: int  # of one sequence, whatever its length: recurrent layers
    encoder_bytes: int  # of one sequence: keys and values of what an encoder read


FIELDS = frozenset(field.name for field in fields(ConfigFacts))


def facts_from(values: Mapping[str, Any]) -> ConfigFacts:
    """Return the facts that JSON holds. Raises ValueError for another set of names, or a value of another kind."""
    if set(values) != FIELDS:
        raise ValueError(f"not the fields of a config: {sorted(FIELDS ^ set(values))}")
    facts = ConfigFacts(**values)
    if any(not isinstance(value, int | str | None) for value in values.values()):
        raise ValueError("a field is no plain value")
    return facts
