"""What a checkpoint is: its facts, those of its weights, and the names of their types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1}
# safetensors' names for element types; what is missing here is packed or integer and says nothing about the compute type.
SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "BF16": "bfloat16",
    "F16": "float16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


@dataclass(frozen=True)
class Checkpoint:
    """Facts of one checkpoint at one revision. Sizes in bytes, windows in tokens."""

    source: str  # as the user wrote it: hub id, local directory or s3:// URI
    revision: str  # commit hash of a hub repository, else "sha256:" and the start of ``identity``
    identity: str  # hex digest of everything in the files that changes outputs; part of every cell's fingerprint
    architecture: str  # config.json's architectures[0]
    dtype: str  # type most weights are stored in: "bfloat16", "float16", "float32", "float8_e4m3fn", …
    quantization: str | None  # quant_method, e.g. "awq"; None where weights are plain
    parameters: int | None  # None where packing or a file format hides them
    weight_bytes: int  # bytes of the weights as stored
    layers: int
    hidden_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    kv_bytes_per_token: int  # at the KV cache's type (16-bit unless the weights are float32), all layers, one copy
    kv_replicated: bool  # latent attention (MLA): every tensor-parallel rank holds the whole KV cache
    context_window: int
    experts: int  # 0 where dense
    multimodal: bool  # takes images or sound, too
    has_chat_template: bool
    has_tokenizer: bool = True

    @property
    def place(self) -> Literal["s3", "hub", "directory"]:
        """What ``source`` names."""
        if self.source.startswith("s3://"):
            return "s3"
        return "directory" if self.revision.startswith("sha256:") else "hub"


@dataclass(frozen=True)
class Weights:
    """What the weight files' headers say. ``parameters`` is None for files without readable headers."""

    bytes: int
    parameters: int | None
    dtype: str | None
