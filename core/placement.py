"""Routing as arithmetic: (checkpoint, fleet, policy) → placement with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """Where one model runs and why. ``reason`` is a sentence a person reads."""

    engine: str  # "lightweight" | "distributed"
    tensor_parallel: int
    pipeline_parallel: int
    replicas: int
    max_model_len: int
    dtype: str
    weight_bytes: int  # as loaded, all ranks together
    reason: str

    @property
    def gpus(self) -> int:
        """GPUs held by all replicas together."""
        return self.tensor_parallel * self.pipeline_parallel * self.replicas
