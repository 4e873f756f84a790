"""What `steelyard simulate` says, as a table and a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.planning.schedule.bound import LowerBound
from core.planning.schedule.jobs import Job, Node
from core.planning.schedule.simulate import Simulated
from core.tables import Row, Table, duration, numbers, texts

REASONS = {
    "longest job": "the longest job takes that long",
    "area": "the work spread evenly over all GPUs takes that long",
    "packing": "long jobs and gangs that exclude each other take that long",
}


def simulation_table(runs: Mapping[str, Simulated], bound: LowerBound) -> Table:
    """One row per policy: makespan, its ratio to the bound, utilisation, idle GPU-hours, and how long jobs waited to start."""
    headings = ("makespan", "÷ bound", "utilisation", "idle GPU-hours", "mean wait", "longest wait")
    rows = []
    for name, run in runs.items():
        waits = list(run.waits.values()) or [0.0]
        cells = (
            name,
            duration(run.makespan),
            f"{run.makespan / bound.seconds:.3f}" if bound.seconds else "",
            f"{run.utilisation:.1%}",
            f"{run.gpus * run.makespan * (1 - run.utilisation) / 3600:,.1f}",
            duration(sum(waits) / len(waits)),
            duration(max(waits)),
        )
        rows.append(Row(cells))
    return Table("Simulated", (*texts("policy"), *numbers(*headings)), rows)


def bound_line(bound: LowerBound, nodes: Sequence[Node], jobs: Sequence[Job]) -> str:
    """Say what was simulated and what no policy could beat."""
    gpus = sum(node.gpus for node in nodes)
    return (
        f"{len(jobs):,} models on {gpus:,} GPUs in {len(nodes):,} nodes. No schedule ends before {duration(bound.seconds)}: "
        f"{REASONS[bound.reason]}."
    )
