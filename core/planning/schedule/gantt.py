"""The Gantt chart of simulated campaigns: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from core.planning.schedule.bound import LowerBound
from core.planning.schedule.jobs import Node, ScheduledJob
from core.planning.schedule.simulate import JobSpan, Simulated
from core.tables import Row, Table, duration, numbers, texts

HOUR = 3600.0
ROW_PIXELS, LEAST_PIXELS, MOST_PIXELS = 14, 160, 1600


def write_gantt(path: Path, runs: Mapping[str, Simulated], nodes: Sequence[Node], bound: LowerBound) -> None:
    """Draw one panel per policy, a row per GPU, a bar per job, and the lower bound as a line. Raises `OSError`."""
    figure = gantt_figure(runs, nodes, bound)
    # plotly would otherwise ask its own server for the library.
    path.write_text(figure.to_html(include_plotlyjs=True, full_html=True), encoding="utf-8")


def gantt_figure(runs: Mapping[str, Simulated], nodes: Sequence[Node], bound: LowerBound) -> Any:
    """Return the figure, a ``plotly.graph_objects.Figure``."""
    from plotly.subplots import make_subplots

    rows = {device: row for row, device in enumerate((node.name, gpu) for node in nodes for gpu in range(node.gpus))}
    pixels = min(MOST_PIXELS, max(LEAST_PIXELS, ROW_PIXELS * len(rows)))
    figure = make_subplots(
        rows=len(runs),
        shared_xaxes=True,
        vertical_spacing=min(0.05, 0.3 / len(runs)),
        subplot_titles=[f"{name}: {duration(run.makespan)}" for name, run in runs.items()],
    )
    widths = sorted({span.option.gpus for run in runs.values() for span in run.spans})
    for number, run in enumerate(runs.values(), 1):
        for width in widths:
            figure.add_trace(_bars(run, width, rows, legend=number == 1, shade=widths.index(width)), number, 1)
        figure.add_vline(x=bound.seconds / HOUR, line_dash="dash", line_width=1, row=number, col=1)
        figure.update_yaxes(
            range=[len(rows) - 0.5, -0.5],
            tickvals=[rows[node.name, 0] for node in nodes],
            ticktext=[escape(node.name, quote=False) for node in nodes],
            row=number,
            col=1,
        )
    figure.update_xaxes(title_text="hours", row=len(runs), col=1)
    figure.update_layout(
        barmode="overlay", bargap=0.1, height=120 + (pixels + 60) * len(runs), legend_title_text="GPUs of a model"
    )
    return figure


def _bars(run: Simulated, width: int, rows: Mapping[tuple[str, int], int], *, legend: bool, shade: int) -> Any:
    from plotly.colors import qualitative
    from plotly.graph_objects import Bar

    bars = [(span, rows[device]) for span in run.spans if span.option.gpus == width for device in span.devices]
    return Bar(
        orientation="h",
        base=[span.start / HOUR for span, _ in bars],
        x=[(span.end - span.start) / HOUR for span, _ in bars],
        y=[row for _, row in bars],
        width=0.9,
        marker={"color": qualitative.Safe[shade % len(qualitative.Safe)], "line": {"width": 0.3}},
        text=[escape(span.key.rsplit("/", 1)[-1], quote=False) for span, _ in bars],
        textposition="inside",
        insidetextanchor="start",
        constraintext="inside",
        customdata=[_told(span) for span, _ in bars],
        hovertemplate="%{customdata}<extra></extra>",
        name=str(width),
        legendgroup=str(width),
        showlegend=legend,
    )


def _told(span: JobSpan) -> str:
    where = ", ".join(sorted({f"{device.node}:{device.gpu}" for device in span.devices}))
    lines = (span.key, f"{duration(span.end - span.start)} from {duration(span.start)}", where)
    return "<br>".join(escape(line, quote=False) for line in lines)


REASONS = {
    "longest job": "the longest job takes that long",
    "area": "the work spread evenly over all GPUs takes that long",
    "packing": "long jobs and gangs that exclude each other take that long",
}


def simulation_table(runs: Mapping[str, Simulated], bound: LowerBound) -> Table:
    """Return one row per policy: makespan, its ratio to the bound, utilisation, idle GPU-hours, and how long jobs waited."""
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


def bound_line(bound: LowerBound, nodes: Sequence[Node], jobs: Sequence[ScheduledJob]) -> str:
    """Return a line on what was simulated and what no policy could beat."""
    gpus = sum(node.gpus for node in nodes)
    return (
        f"{len(jobs):,} models on {gpus:,} GPUs in {len(nodes):,} nodes. No schedule ends before {duration(bound.seconds)}: "
        f"{REASONS[bound.reason]}."
    )
