"""What `steelyard plan` says about time and money, as a table and lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.table import Table

from core.cost.estimate import CampaignEstimate, ModelEstimate, Triple
from core.cost.model import PastError


def duration(seconds: float) -> str:
    """Write seconds as a person would: ``40 s``, ``12 min``, ``3.4 h``, ``2.1 d``."""
    for size, name in ((86400 * 2, "d"), (3600 * 1.5, "h"), (100, "min")):
        if seconds >= size:
            value = seconds / {"d": 86400, "h": 3600, "min": 60}[name]
            return f"{value:.1f} {name}" if value < 10 else f"{value:,.0f} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def estimate_table(estimate: CampaignEstimate, price: float | None) -> Table:
    """One row per model: docs, tokens, seconds to load and to run, the 80% interval of both, GPU-hours, and cost with a price."""
    table = Table(title="Estimate, as if nothing were stored yet", title_justify="left")
    table.add_column("model", no_wrap=True)
    headings = ["GPUs", "docs", "prompt tokens", "completion tokens", "load", "run", "80% interval", "GPU-hours"]
    for name in [*headings, *(["cost"] if price is not None else [])]:
        table.add_column(name, justify="right", no_wrap=True)
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
        table.add_row(*row, *([f"{hours * price:,.2f}"] if price is not None else []))
    return table


def campaign_lines(estimate: CampaignEstimate, past: PastError | None, learnt: int) -> list[str]:
    """Say what the whole takes, and how far past estimates were off; ``learnt`` is how many past runs of models there are."""
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
    """Say where docs and tokens come from: one line per basis with its benchmarks."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for model in models:
        for load in model.workloads:
            found[load.basis][load.benchmark] = None
    return [f"Docs and tokens, {basis}: {', '.join(names)}" for basis, names in found.items()]


def _count(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / {'G': 1e9, 'M': 1e6, 'k': 1e3}[letter]:.3g} {letter}"
    return f"{number:.0f}"


def span_text(values: Triple) -> str:
    """Write a median with its interval: ``0.40 (0.20 – 0.80)``."""
    low, middle, high = values
    return f"{middle:,.2f} ({low:,.2f} – {high:,.2f})"
