"""Tables about what has not run yet: a plan's placements, and what a checkpoint is."""

from __future__ import annotations

from core.campaign import FleetSpec, ModelSpec, PolicySpec
from core.errors import UserError
from core.model.facts import Checkpoint
from core.model.placement import Placement, Plan, place
from core.model.replicas import with_replicas
from core.tables import Row, Table, facts_table, numbers, texts

GB = 10**9


def placement_table(plan: Plan, policy: PolicySpec) -> Table:
    """One row per model: engine, GPUs, the most replicas, window, weights as loaded, and the reason."""
    rows = []
    for planned in plan.models:
        place_ = with_replicas(planned.placement, planned.model, plan.fleet, policy)
        cells = (
            planned.model.name,
            place_.engine,
            str(place_.replica_gpus),
            str(place_.tensor_parallel),
            str(place_.pipeline_parallel),
            "1" if place_.replicas == 1 else f"1–{place_.replicas}",
            f"{place_.max_model_len:,}",
            f"{place_.weight_bytes / GB:.2f}",
            place_.reason,
        )
        rows.append(Row(cells))
    figures = numbers("GPUs", "TP", "PP", "replicas", "window", "weights GB")
    return Table("Placement", (*texts("model", "engine"), *figures, *texts("reason")), rows)


def checkpoint_table(checkpoint: Checkpoint, fleet: FleetSpec) -> Table:
    """Facts of one checkpoint, a row each; the last says where it would run on ``fleet``."""
    heads = f"{checkpoint.attention_heads} attention, {checkpoint.kv_heads} key/value, of {checkpoint.head_dim}"
    facts = {
        "architecture": checkpoint.architecture,
        "revision": checkpoint.revision,
        "parameters": "hidden by packing" if checkpoint.parameters is None else f"{checkpoint.parameters:,}",
        "weights": f"{checkpoint.weight_bytes / GB:.2f} GB, {checkpoint.dtype}"
        + (f", {checkpoint.quantization}" if checkpoint.quantization else ""),
        "layers": f"{checkpoint.layers}, hidden size {checkpoint.hidden_size}",
        "heads": heads,
        "KV cache": f"{checkpoint.kv_bytes_per_token:,} bytes per token",
        "context window": f"{checkpoint.context_window:,} tokens",
        "experts": str(checkpoint.experts) if checkpoint.experts else "none (dense)",
        "chat template": "yes" if checkpoint.has_chat_template else "no",
        "would run": _where(checkpoint, fleet),
    }
    return facts_table(checkpoint.source, facts)


def _where(checkpoint: Checkpoint, fleet: FleetSpec) -> str:
    try:
        placement: Placement = place(checkpoint, ModelSpec(model=checkpoint.source), fleet, PolicySpec())
    except UserError as error:
        return f"nowhere: {error}"
    return f"{placement.engine}, {placement.gpus} GPU{'s' if placement.gpus > 1 else ''}: {placement.reason}"
