"""Tables about what has not run yet: a plan's placements, and what a checkpoint is."""

from __future__ import annotations

from rich.table import Table

from core.campaign import FleetSpec, ModelSpec, PolicySpec
from core.checkpoint.facts import Checkpoint
from core.errors import UserError
from core.placement import Placement, place
from core.plan import Plan
from core.replicas import with_replicas

GB = 10**9


def placement_table(plan: Plan, policy: PolicySpec) -> Table:
    """One row per model: engine, GPUs, the most replicas, window, weights as loaded, and the reason."""
    table = Table(title="Placement", title_justify="left")
    for name in ("model", "engine"):
        table.add_column(name, no_wrap=True)
    for name in ("GPUs", "TP", "PP", "replicas", "window", "weights GB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for planned in plan.models:
        place_ = with_replicas(planned.placement, planned.model, plan.fleet, policy)
        table.add_row(
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
    return table


def checkpoint_table(checkpoint: Checkpoint, fleet: FleetSpec) -> Table:
    """Facts of one checkpoint, a row each; the last says where it would run on ``fleet``."""
    table = Table(title=checkpoint.source, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
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
    for name, fact in facts.items():
        table.add_row(name, fact)
    return table


def _where(checkpoint: Checkpoint, fleet: FleetSpec) -> str:
    try:
        placement: Placement = place(checkpoint, ModelSpec(model=checkpoint.source), fleet, PolicySpec())
    except UserError as error:
        return f"nowhere: {error}"
    return f"{placement.engine}, {placement.gpus} GPU{'s' if placement.gpus > 1 else ''}: {placement.reason}"
