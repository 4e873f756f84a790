"""Loading a model into a device's memory while the one before it ends there: which models leave room for that. Pure."""

from __future__ import annotations

from dataclasses import replace

from core.campaign import FleetSpec, ModelSpec, PolicySpec
from core.checkpoint.facts import Checkpoint
from core.errors import CannotPlaceError
from core.placement import Placement, memory_of, place

MEMORY_OPTIONS = frozenset({"gpu_memory_utilization", "kv_cache_memory_bytes"})  # vLLM's: a person has decided


def with_room(
    placement: Placement, checkpoint: Checkpoint, model: ModelSpec, fleet: FleetSpec, policy: PolicySpec
) -> Placement:
    """Return ``placement``, marked to leave half of its device's memory where the model would be placed there just the same."""
    if not policy.load_ahead or placement.engine != "lightweight" or MEMORY_OPTIONS & model.vllm.keys():
        return placement
    try:
        half = place(checkpoint, model, fleet, halved(policy), free_gpus=1)
    except CannotPlaceError:
        return placement
    if (half.engine, half.max_model_len) != (placement.engine, placement.max_model_len):
        return placement
    reason = f"{placement.reason} It leaves half of the memory for the next model to load in."
    return replace(placement, leaves_room=True, reason=reason)


def halved(policy: PolicySpec) -> PolicySpec:
    """The policy of an engine that leaves half of a device's memory to another."""
    return policy.model_copy(update={"gpu_memory_utilization": policy.gpu_memory_utilization / 2})


def half_kv_cache_bytes(
    placement: Placement, checkpoint: Checkpoint, model: ModelSpec, fleet: FleetSpec, policy: PolicySpec
) -> int:
    """KV cache of a placement that leaves room.

    vLLM is told: it would measure what is left, and fails where another engine gives memory back meanwhile.
    """
    memory = memory_of(checkpoint, model, fleet, halved(policy), placement)
    return int(memory.usable - memory.weights - memory.headroom)
