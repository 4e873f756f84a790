"""Timelines for people: a chart, for the terminal and in markdown. Lines of a model: its devices, the host, and the plan."""

from __future__ import annotations

from collections.abc import Sequence

from core.monitor.timeline import IDLE, ON_DEVICE, PHASES, PLAN, Lane, Span, extent, plan_of
from core.tables import Column, Row, Table, fenced, numbers, texts
from core.visible import one_line

# Phase → its mark and its colour in a terminal.
STYLES = {
    "prepare": ("p", "cyan"), "wait": ("·", "bright_black"), "load": ("▒", "yellow"), "generate": ("█", "green"),
    IDLE: ("_", "red"), "score": ("s", "magenta"), "store": ("w", "blue"), "close": ("x", "yellow"), PLAN: ("─", "bright_black"),
}  # fmt: skip
LEGEND = "  ".join(f"{mark} {phase}" for phase, (mark, _) in STYLES.items())
COLUMNS = 72
HEADINGS = ("model", "held", "working", *PHASES[:4], IDLE, *PHASES[4:])


def chart(lanes: Sequence[Lane], columns: int = COLUMNS) -> list[tuple[str, list[str]]]:
    """Return each lane's label and lines: its devices, the host, and the plan where there is one.

    A line has a mark of `STYLES` for every equal part of the time from first to last span. A mark names the phase that took most
    of its part; a phase shorter than that may not show.
    """
    begin, end = extent(lanes)
    step = max(end - begin, 1e-6) / columns
    lines = []
    for lane in lanes:
        on_device = [span for span in lane.spans if span.phase in ON_DEVICE]
        on_host = [span for span in lane.spans if span.phase not in ON_DEVICE]
        found = [_line(on_device, begin, step, columns), _line(on_host, begin, step, columns)]
        if plan := plan_of(lane):
            found.append(_line(plan, begin, step, columns))
        lines.append((one_line(lane.label), found))
    return lines


def timeline_markdown(lanes: Sequence[Lane], columns: int = COLUMNS) -> str:
    """Return the chart in a code block, and the seconds of each phase as a table."""
    if not lanes:
        return ""
    drawn = chart(lanes, columns)
    width = max(len(label) for label, _ in drawn)
    lines = [f"{'':{width}} 0 s{format(_total(lanes), f'>{columns - 5}.0f')} s"]
    for label, (devices, *others) in drawn:
        lines += [f"{label:{width}} {devices}".rstrip(), *(f"{'':{width}} {line}".rstrip() for line in others)]
    seconds = Table("", (*texts("model"), *numbers(*HEADINGS[1:])), [Row(_cells(lane)) for lane in lanes])
    return "\n\n".join([fenced("\n".join([*lines, "", LEGEND])), seconds.markdown()])


def timeline_table(title: str, lanes: Sequence[Lane], columns: int = COLUMNS) -> Table:
    """Return the chart with the held time of each model as a table, headed by ``title``."""
    from rich.text import Text

    colour_of = dict(STYLES.values())
    rows = []
    for lane, (label, drawn) in zip(lanes, chart(lanes, columns), strict=True):
        bars = Text.assemble(*((mark, colour_of.get(mark, "")) for mark in "\n".join(drawn)))
        rows.append(Row([label, *_cells(lane)[1:3], bars]))
    legend = Text.assemble(*((f"{mark} {phase}  ", colour) for phase, (mark, colour) in STYLES.items()))
    headed = (*texts("model"), *numbers("held", "working"), Column("devices / host / plan", wrap=False))
    return Table(f"{title}: {_total(lanes):.0f} s", headed, rows, [legend])


def _total(lanes: Sequence[Lane]) -> float:
    begin, end = extent(lanes)
    return end - begin


def _line(spans: Sequence[Span], begin: float, step: float, columns: int) -> str:
    shares: list[dict[str, float]] = [{} for _ in range(columns)]
    for span in spans:
        first = min(columns - 1, int((span.started - begin) / step))
        last = min(columns - 1, int((span.ended - begin) / step))
        for column in range(first, last + 1):
            at = begin + column * step
            share = min(span.ended, at + step) - max(span.started, at)
            if column == first or share > 0:
                shares[column][span.phase] = shares[column].get(span.phase, 0.0) + share
    return "".join(STYLES[max(share, key=share.__getitem__)][0] if share else " " for share in shares)


def _cells(lane: Lane) -> list[str]:
    share = lane.working_share
    seconds = [f"{lane.seconds(phase):.1f} s" for phase in HEADINGS[3:]]
    return [lane.label, f"{lane.held_seconds:.1f} s", "" if share is None else f"{share:.0%}", *seconds]
