"""Memory of one sequence's keys, values and states, as vLLM's KV cache manager allots it (``vllm/v1/kv_cache_interface.py``)."""

from __future__ import annotations

from dataclasses import dataclass

from core.campaign import ModelSpec
from core.model.checkpoint import DTYPE_BYTES, Checkpoint

BATCHED_TOKENS = 2048  # vLLM's own for an engine that is not asked for another number
STATES = 2  # of a recurrent layer, where vLLM keeps prefixes, as it does unless told otherwise


@dataclass(frozen=True)
class KVCache:
    """Bytes of one sequence, one copy: per token of layers that keep all or slide, and whatever its length."""

    per_token: float
    sliding: float
    window: int  # tokens that sliding layers keep, beside those in flight
    batched: int  # tokens of a batch: those in flight are kept until they are settled
    sequence: float
    states: float
    shares: int  # tensor-parallel ranks that can split keys and values; 1 where each holds all of them

    def bytes(self, tokens: int, tensor: int, pipeline: int) -> float:
        """Return the bytes of a sequence of ``tokens`` on one GPU."""
        sliding = self.sliding * min(tokens, self._kept(pipeline))
        attended = (self.per_token * tokens + sliding + self.sequence) / min(tensor, self.shares)
        return (attended + self.states / tensor) / pipeline

    def tokens(self, room: float, most: int, tensor: int, pipeline: int) -> int:
        """Return how many tokens, at most ``most``, a sequence may have in ``room`` bytes of one GPU."""
        if self.bytes(most, tensor, pipeline) <= room:
            return most
        kept = min(most, self._kept(pipeline))
        for start, rest in ((kept, self.bytes(kept, tensor, pipeline)), (0, self.bytes(0, tensor, pipeline))):
            if rest <= room:
                step = self.bytes(start + 1, tensor, pipeline) - rest
                return start + int((room - rest) / step)
        return 0

    def _kept(self, pipeline: int) -> int:
        """Return the tokens that a sliding layer keeps: a batch more than there are stages is in flight."""
        return self.window - 1 + self.batched * (pipeline + 1)


def kv_cache(checkpoint: Checkpoint, model: ModelSpec) -> KVCache:
    """Return the cache of one model as it is asked for. Pure."""
    full, sliding = checkpoint.kv_bytes_per_token, checkpoint.kv_sliding_bytes_per_token
    # Where not every layer slides, only its hybrid manager frees what slid out.
    if full and model.vllm.get("disable_hybrid_kv_cache_manager"):
        full, sliding = full + sliding, 0
    wide = _wider(checkpoint, model)
    return KVCache(
        per_token=full * wide,
        sliding=sliding * wide,
        window=checkpoint.kv_sliding_window,
        batched=int(model.vllm.get("max_num_batched_tokens") or BATCHED_TOKENS),
        sequence=checkpoint.kv_bytes_per_sequence * wide,
        states=checkpoint.state_bytes * (1 if model.vllm.get("enable_prefix_caching") is False else STATES),
        shares=1 if checkpoint.kv_replicated else max(1, checkpoint.kv_heads),
    )


def computed_bytes(checkpoint: Checkpoint, model: ModelSpec) -> tuple[int, int]:
    """Return the bytes of a number as stored and as computed in; a type that is asked for does not unpack quantised weights."""
    stored = DTYPE_BYTES.get(checkpoint.dtype, 2)
    return stored, stored if model.dtype == "auto" or checkpoint.quantization else DTYPE_BYTES[model.dtype]


def _wider(checkpoint: Checkpoint, model: ModelSpec) -> float:
    """Return by how much keys and values are wider than in the checkpoint's own type: 16 bits unless it computes in 32."""
    if checkpoint.kv_dtype != "auto":
        return 1.0
    stored, computed = computed_bytes(checkpoint, model)
    return max(2, computed) / max(2, stored)
