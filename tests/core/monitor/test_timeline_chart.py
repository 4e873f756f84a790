"""Timelines for people."""

import io

from rich.console import Console

from core.monitor.timeline import PLAN, Span, lanes
from core.monitor.timeline_chart import chart, timeline_markdown, timeline_table

SPANS = [
    Span(model, "benchmarks", "lightweight", phase, benchmark, started, ended)
    for model, phase, benchmark, started, ended in (
        ("first", "prepare", "a", 0, 10),
        ("first", "load", "", 10, 30),
        ("first", "generate", "a", 30, 60),
        ("first", "generate", "b", 70, 80),
        ("first", "score", "a", 60, 70),
        ("first", "close", "", 80, 90),
        ("second", "wait", "", 0, 90),
        ("second", "load", "", 90, 100),
    )
]
LANES = lanes(SPANS)


def test_a_mark_is_what_took_most_of_its_time() -> None:
    assert chart(LANES, 10) == [("first", [" ▒▒███_█x ", "p     s   "]), ("second", ["·········▒", "          "])]


def test_the_plan_is_a_line_of_its_own_on_the_same_clock() -> None:
    found = lanes([*SPANS, Span("second", "benchmarks", "lightweight", PLAN, "", 50, 200)])
    drawn = dict(chart(found, 10))
    assert drawn["second"] == ["·····     ", "          ", "  ────────"]
    assert len(drawn["first"]) == 2
    assert "  ────────" in timeline_markdown(found, 10)


def test_nothing_is_no_chart() -> None:
    assert chart([]) == []
    assert timeline_markdown([]) == ""


def test_markdown_has_the_chart_and_the_seconds() -> None:
    lines = timeline_markdown(LANES, 10).splitlines()
    assert "first   ▒▒███_█x" in lines
    assert "| first | 80.0 s | 50% | 10.0 s | 0.0 s | 20.0 s | 40.0 s | 10.0 s | 10.0 s | 0.0 s | 10.0 s |" in lines


def test_the_terminal_shows_each_model() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(timeline_table("nightly", LANES, 10))
    shown = console.export_text()
    assert "nightly: 100 s" in shown
    assert "▒▒███_█x" in shown
    assert "50%" in shown
