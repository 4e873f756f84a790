"""Model registry: what a checkpoint is, read from its config and its safetensors headers, never from its name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Checkpoint:
    """Facts of one checkpoint at one revision. Sizes in bytes, windows in tokens."""

    source: str  # as the user wrote it: hub id, local directory or s3:// URI
    revision: (
        str  # commit hash of a hub repository, else a content digest ("sha256:…") of config + weight headers/sizes
    )
    identity: str  # hex digest of everything in the files that changes outputs; part of every cell's fingerprint
    architecture: str  # config.json's architectures[0]
    model_type: str
    dtype: str  # dtype of the stored weights: "bfloat16", "float16", "float32", "float8_e4m3fn", …
    quantization: str | None  # quant_method, e.g. "awq"; None where weights are plain
    parameters: int | None  # logical parameters; None where packing hides them
    weight_bytes: int  # bytes of the weights as stored
    layers: int
    hidden_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    kv_bytes_per_token: (
        int  # at the KV cache's dtype (16-bit unless the weights are float32), summed over all layers, one copy
    )
    kv_replicated: bool  # latent attention (MLA): every tensor-parallel rank holds the whole KV cache
    context_window: int
    vocab_size: int
    experts: int  # 0 where dense
    multimodal: bool
    has_chat_template: bool
