"""What a model's layers keep of a sequence, by its config and vLLM's own sizes: see vLLM's ``v1/kv_cache_interface.py``.

The layers themselves say the same once the model is made, which takes packages, kernels and time that planning may not have
(`perf.config_caches` compares).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from math import prod
from types import SimpleNamespace
from typing import Any

# Until the library that it comes from says so: blocks of hybrid models that keep nothing between tokens.
STATELESS = frozenset({"mlp", "moe"})
KEY_PARTS = ("qk_nope_head_dim", "qk_rope_head_dim")
DRAFT_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers")  # as vLLM's converters of MTP models name them
STATE_TYPES = ("mamba_cache_dtype", "mamba_ssm_cache_dtype")  # arguments of vLLM's engine
SLIDING = ("sliding_attention", "chunked_attention")


def cache_of(config: Any, model: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that say what the layers keep: see vLLM's ``kv_cache_interface``."""
    from vllm.utils.torch_utils import resolve_kv_cache_dtype_string

    kv_dtype = resolve_kv_cache_dtype_string(arguments.get("kv_cache_dtype") or "auto", config)
    sizes = layer_bytes(config, kv_dtype)
    kinds = layer_kinds(config, len(sizes))
    window = sliding_window(config)
    slides = [bool(window) and kind in SLIDING for kind in kinds]
    attends = attention_layers(config, kinds)
    return {
        "kv_dtype": kv_dtype,
        "kv_bytes": round(
            sum(size for size, slid, on in zip(sizes, slides, attends, strict=True) if on and not slid)
            + draft_layers(config, arguments) * max(sizes, default=0)
        ),
        "sliding_bytes": round(sum(size for size, slid, on in zip(sizes, slides, attends, strict=True) if on and slid)),
        "sliding_window": window if any(slides) else 0,
        "state_bytes": state_bytes(config, model, kinds, attends, arguments),
        "encoder_bytes": encoder_bytes(config, sizes),
    }


def layer_bytes(config: Any, kv_dtype: str) -> list[float]:
    """Return bytes of one token's keys and values, layer by layer."""
    import torch
    from vllm.utils.torch_utils import STR_DTYPE_TO_TORCH_DTYPE
    from vllm.v1.kv_cache_interface import AttentionSpec, MLAAttentionSpec, get_kv_quant_mode

    arch, text = config.model_arch_config, config.hf_text_config
    dtype = torch.float16 if kv_dtype == "auto" else STR_DTYPE_TO_TORCH_DTYPE[kv_dtype]
    spec = MLAAttentionSpec if config.use_mla else AttentionSpec

    # Latent attention that vLLM computes as any other keeps both parts of a key, as MiniCPM3's does.
    parts = 0 if config.use_mla else sum(getattr(text, name, None) or 0 for name in KEY_PARTS)

    def one(layer: Any) -> float:
        heads = 1 if config.use_mla else layer.total_num_kv_heads or 0
        size = max(layer.head_size, parts)
        quantized = get_kv_quant_mode(kv_dtype)
        whole = spec(block_size=1, num_kv_heads=heads, head_size=size, dtype=dtype, kv_quant_mode=quantized)
        return whole.real_page_size_bytes + indexer_bytes(text)

    return [one(arch[index]) for index in range(arch.total_num_hidden_layers)]


def draft_layers(config: Any, arguments: Mapping[str, Any]) -> int:
    """Return how many multi-token-prediction layers an engine loads: none unless it is to speculate by them."""
    speculates = arguments.get("speculative_config") or {}
    if "mtp" not in str(speculates.get("method")):
        return 0
    return next((count for name in DRAFT_LAYERS if (count := getattr(config.hf_text_config, name, None))), 0)


def indexer_bytes(text: Any) -> int:
    """Return bytes of one token that a sparse layer keeps to choose tokens by (``DeepseekV32IndexerCache``): 8 bits and scales."""
    size = getattr(text, "index_head_dim", None) if getattr(text, "index_topk", None) else None
    return size + size // 128 * 4 if size else 0


def sliding_window(config: Any) -> int:
    """Return how many tokens sliding layers keep; 0 where no layer slides."""
    return int(config.get_sliding_window() or getattr(config.hf_text_config, "attention_chunk_size", None) or 0)


def layer_kinds(config: Any, layers: int) -> list[str]:
    """Return the kind of each layer in the words of transformers; as vLLM, all slide where a config has a window and no kinds."""
    usual = "sliding_attention" if config.get_sliding_window() else "full_attention"
    return [*stated_kinds(config, layers), *[usual] * layers][:layers]


def stated_kinds(config: Any, layers: int) -> Sequence[str]:
    """Return the kinds that a config states, under each name that vLLM looks for; none where it states none."""
    text = config.hf_text_config
    if kinds := getattr(text, "layers_block_type", None) or getattr(text, "layer_types", None):
        return list(kinds)
    if listed := getattr(config.hf_config, "attn_type_list", None):  # MiniMax
        linear = [kind != 1 for kind in listed]
    elif hasattr(text, "is_kda_layer"):  # Kimi Linear
        linear = [text.is_kda_layer(layer) for layer in range(layers)]
    else:
        return []
    return ["linear_attention" if each else "full_attention" for each in linear]


def attention_layers(config: Any, kinds: Sequence[str]) -> list[bool]:
    """Say of each layer whether it keeps keys and values of its own."""
    # The last ones may read what earlier layers keep.
    shared = getattr(config.hf_text_config, "num_kv_shared_layers", None) or 0
    owns = [True] * (len(kinds) - shared) + [False] * shared
    if config.is_attention_free or config._model_info.attn_type == "encoder_only":
        return [False] * len(kinds)
    if config.has_noops:
        return [not block.attention.no_op for block in config.hf_config.block_configs]
    if not config.is_hybrid:
        return owns
    return [own and (kind == "hybrid" or is_attention(kind)) for own, kind in zip(owns, kinds, strict=True)]


def is_attention(kind: str) -> bool:
    """Whether layers of a kind, in the words of transformers, keep keys and values."""
    return "attention" in kind and "linear" not in kind


def state_bytes(
    config: Any, model: Any, kinds: Sequence[str], attends: Sequence[bool], arguments: Mapping[str, Any]
) -> int:
    """Return bytes of one sequence's state in recurrent layers, by the model class's own arithmetic."""
    if not (config.is_hybrid or config.is_attention_free) or not hasattr(model, "get_mamba_state_shape_from_config"):
        return 0
    recurrent = [
        kind == "hybrid" or (not on and kind not in STATELESS) for kind, on in zip(kinds, attends, strict=True)
    ]
    if not any(recurrent) and not hasattr(config.hf_config, "mamba_d_ssm"):
        return 0
    import torch
    from vllm.config import CacheConfig
    from vllm.utils.torch_utils import get_dtype_size

    config.dtype = torch.bfloat16
    types = {name: arguments[name] for name in STATE_TYPES if name in arguments}
    if named := getattr(config.hf_text_config, "mamba_ssm_dtype", None):  # of Qwen3.5 and Nemotron-H
        types.setdefault(STATE_TYPES[1], named)
    whole = _Whole(
        model_config=config,
        parallel_config=SimpleNamespace(tensor_parallel_size=1),
        cache_config=CacheConfig(**types),
        speculative_config=None,
        num_speculative_tokens=0,
    )
    shapes = model.get_mamba_state_shape_from_config(whole)
    dtypes = model.get_mamba_state_dtype_from_config(whole)
    each = sum(prod(shape) * get_dtype_size(dtype) for shape, dtype in zip(shapes, dtypes, strict=True))
    return each * (sum(recurrent) or len(kinds))  # every layer of Falcon-H1 attends and recurs


class _Whole(SimpleNamespace):
    """As much of a ``VllmConfig`` as decides the size of a state."""

    def with_hf_config(self, hf_config: Any) -> _Whole:
        """Return the same for a part of a model."""
        part = copy.copy(self.model_config)
        part.hf_config = part.hf_text_config = hf_config
        return _Whole(**{**vars(self), "model_config": part})


def encoder_bytes(config: Any, sizes: Sequence[float]) -> int:
    """Return bytes of one sequence's keys and values of cross-attention: every decoder layer keeps all that the encoder read."""
    if not config.is_encoder_decoder:
        return 0
    text = config.hf_text_config
    read_at_most = getattr(text, "max_source_positions", None) or getattr(text, "max_position_embeddings", None) or 0
    return round(sum(sizes) * read_at_most)
