"""Tables of what has not run yet: a plan's placements, a checkpoint's facts, a campaign's estimate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from core.campaign import FleetSpec, ModelSpec, PolicySpec
from core.errors import UserError
from core.model.checkpoint import Checkpoint
from core.model.placement import GB, Plan, place
from core.model.sizing import with_replicas
from core.planning.cost.estimate import CampaignEstimate, ModelEstimate
from core.planning.cost.model import PastError
from core.tables import Row, Table, duration, facts_table, numbers, span_text, texts


def placement_table(plan: Plan, policy: PolicySpec) -> Table:
    """Return one row per model: engine, GPUs, the most replicas, window, weights as loaded, and the reason."""
    rows = []
    for planned in plan.models:
        placement = with_replicas(planned.placement, planned.model, plan.fleet, policy)
        cells = (
            planned.model.name,
            placement.engine,
            str(placement.replica_gpus),
            str(placement.tensor_parallel),
            str(placement.pipeline_parallel),
            "1" if placement.replicas == 1 else f"1–{placement.replicas}",
            f"{placement.max_model_len:,}",
            f"{placement.weight_bytes / GB:.2f}",
            placement.reason,
        )
        rows.append(Row(cells))
    figures = numbers("GPUs", "TP", "PP", "replicas", "window", "weights GB")
    return Table("Placement", (*texts("model", "engine"), *figures, *texts("reason")), rows)


def checkpoint_table(checkpoint: Checkpoint, fleet: FleetSpec) -> Table:
    """Return the facts of one checkpoint, a row each; the last says where it would run on ``fleet``."""
    facts = {
        "architecture": checkpoint.architecture,
        "revision": checkpoint.revision,
        "parameters": "hidden by packing" if checkpoint.parameters is None else f"{checkpoint.parameters:,}",
        "weights": f"{checkpoint.weight_bytes / GB:.2f} GB, {checkpoint.dtype}"
        + (f", {checkpoint.quantization}" if checkpoint.quantization else ""),
        "layers": f"{checkpoint.layers}, hidden size {checkpoint.hidden_size}",
        "heads": _heads(checkpoint),
        "KV cache": _cache(checkpoint),
        "context window": f"{checkpoint.context_window:,} tokens"
        + (", for want of one in the config" if checkpoint.any_window else ""),
        "experts": str(checkpoint.experts) if checkpoint.experts else "none (dense)",
        "chat template": "yes" if checkpoint.has_chat_template else "no",
        "would run": _where(checkpoint, fleet),
    }
    return facts_table(checkpoint.source, facts)


def _heads(checkpoint: Checkpoint) -> str:
    if not checkpoint.attention_heads:
        return "none (nothing attends)"
    return f"{checkpoint.attention_heads} attention, {checkpoint.kv_heads} key/value, of {checkpoint.head_dim}"


def _cache(checkpoint: Checkpoint) -> str:
    """Return the parts of the KV cache in words."""
    parts = [f"{checkpoint.kv_bytes_per_token:,} bytes per token"]
    if checkpoint.kv_sliding_window:
        parts.append(
            f"{checkpoint.kv_sliding_bytes_per_token:,} per token of the last {checkpoint.kv_sliding_window:,} and those in work"
        )
    if whole := checkpoint.kv_bytes_per_sequence + checkpoint.state_bytes:
        parts.append(f"{whole:,} per sequence")
    return ", ".join(parts)


def _where(checkpoint: Checkpoint, fleet: FleetSpec) -> str:
    # Not checked as a spec is: a checkpoint may lie in a folder that no spec could name.
    model = ModelSpec.model_construct(model=checkpoint.source, name=checkpoint.source)
    try:
        placement = place(checkpoint, model, fleet, PolicySpec())
    except UserError as error:
        return f"nowhere: {error}"
    return f"{placement.engine}, {placement.gpus} GPU{'s' if placement.gpus > 1 else ''}: {placement.reason}"


def estimate_table(estimate: CampaignEstimate, price: float | None) -> Table:
    """Return one row per model: docs, tokens, seconds to load and run with their 80% interval, GPU-hours, cost with a price."""
    rows = []
    for model in estimate.models:
        timed = model.timed[0]
        low, middle, high = timed.seconds
        hours = timed.placement.gpus * middle / 3600
        prompt = sum(load.tokens.computed + load.tokens.cached for load in model.workloads)
        row = [
            model.name,
            str(timed.placement.gpus),
            f"{sum(load.docs for load in model.workloads):,}",
            _count(prompt),
            _count(sum(load.tokens.decoded for load in model.workloads)),
            duration(timed.load.value),
            duration(timed.work.value),
            f"{duration(low)} – {duration(high)}",
            f"{hours:.2f}",
        ]
        rows.append(Row(row if price is None else [*row, f"{hours * price:,.2f}"]))
    columns = (
        *texts("model"),
        *numbers("GPUs", "docs"),
        *numbers("prompt tokens", "completion tokens", spare=True),
        *numbers("load", "run", "80% interval", "GPU-hours", *([] if price is None else ["cost"])),
    )
    return Table("Estimate, as if nothing were stored yet", columns, rows)


def campaign_lines(estimate: CampaignEstimate, past: PastError | None, learnt: int) -> list[str]:
    """Return lines on what the whole takes and how far past estimates were off; ``learnt`` counts past runs of models."""
    low, middle, high = estimate.makespan
    lines = [
        f"Campaign: {duration(middle)} ({duration(low)} – {duration(high)}), {span_text(estimate.gpu_hours)} GPU-hours"
        + ("" if estimate.cost is None else f", cost {span_text(estimate.cost)}")
    ]
    if not learnt:
        lines.append("No past run in the store to learn from: priors alone.")
    elif past is None:
        lines.append(f"Learnt from {learnt} past runs of models, none early enough to have foretold another.")
    else:
        count = len(past.errors)
        how = f"{past.stored} as stored before the run, others" if past.stored else "all"
        lines.append(
            f"Past estimates were off by {past.median:.0%} in the median over {count} run{'s' if count > 1 else ''} of a model "
            f"({how} by what the store held before)."
        )
    return lines


def basis_lines(models: Sequence[ModelEstimate]) -> list[str]:
    """Return where docs and tokens come from: one line per basis with its benchmarks."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for model in models:
        for load in model.workloads:
            found[load.basis][load.benchmark] = None
    return [f"Docs and tokens, {basis}: {', '.join(names)}" for basis, names in found.items()]


def _count(number: float) -> str:
    for least, size, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if number >= least:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"
