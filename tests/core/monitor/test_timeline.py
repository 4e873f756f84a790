"""What spans come to: held time, work and idle."""

from dataclasses import replace

import pytest

from core.monitor.timeline import PLAN, Span, extent, lanes, timeline_rows


def span(
    phase: str, started: float, ended: float, *, benchmark: str = "", model: str = "m", part: str = "benchmarks"
) -> Span:
    return Span(model, part, "lightweight", phase, benchmark, started, ended)


LIFE = [
    span("prepare", 0, 2),
    span("wait", 2, 10),
    span("load", 10, 13),
    span("load", 13, 20),
    span("generate", 21, 30, benchmark="a"),
    span("generate", 21, 40, benchmark="b"),
    span("score", 30, 31, benchmark="a"),
    span("generate", 45, 50, benchmark="c"),
    span("close", 50, 52),
    span("store", 52, 60, benchmark="c"),
]


def test_devices_are_held_from_load_to_close_and_work_counts_once() -> None:
    (lane,) = lanes(LIFE)
    assert lane.label == "m"
    assert lane.held_seconds == 42
    assert lane.working_seconds == 19 + 5
    assert lane.working_share == pytest.approx(24 / 42)
    assert lane.seconds("generate") == 24
    assert lane.seconds("load") == 10
    assert lane.seconds("idle") == 1 + 5
    assert [(each.started, each.ended) for each in lane.spans if each.phase == "idle"] == [(20, 21), (40, 45)]


def test_phases_on_the_devices_fill_the_held_time() -> None:
    (lane,) = lanes(LIFE)
    assert sum(lane.seconds(phase) for phase in ("load", "generate", "idle", "close")) == lane.held_seconds


def test_a_model_that_held_nothing_has_no_share() -> None:
    (lane,) = lanes([span("prepare", 0, 2)])
    assert (lane.held_seconds, lane.working_share) == (0, None)


def test_an_engine_whose_close_is_not_on_record_is_held_to_the_last_span() -> None:
    (lane,) = lanes([span("load", 0, 5), span("generate", 5, 9)])
    assert (lane.held_seconds, lane.working_seconds) == (9, 4)


def test_two_lives_of_a_model_do_not_count_what_is_between() -> None:
    lives = [span("load", 0, 5), span("close", 6, 7), span("load", 20, 25), span("close", 28, 30)]
    (lane,) = lanes(lives)
    assert lane.held_seconds == 7 + 10
    assert lane.seconds("idle") == 1 + 3


def test_lanes_are_parts_of_models_in_the_order_they_began() -> None:
    found = lanes(
        [span("load", 5, 6, model="b"), span("load", 7, 8, model="a"), span("load", 9, 10, model="b", part="judge")]
    )
    assert [lane.label for lane in found] == ["b", "a", "b (judge, lightweight)"]


def test_a_plan_is_no_part_of_what_happened() -> None:
    life = [*LIFE, span(PLAN, -5, 100), span(PLAN, 0, 9, model="nothing to do")]
    (lane,) = lanes(life)
    assert lane == replace(lanes(LIFE)[0], planned=(-5, 100))
    assert extent([lane]) == (-5, 100)
    rows = timeline_rows([lane])
    assert [(row["start"], row["end"]) for row in rows if row["phase"] == PLAN] == [(0, 105)]
    assert rows[0]["start"] == 5


def test_rows_tell_seconds_since_the_first_span() -> None:
    rows = timeline_rows(lanes([span("load", 100, 105), span("generate", 106, 110, benchmark="x")]))
    assert [(row["phase"], row["benchmark"], row["start"], row["end"]) for row in rows] == [
        ("load", "", 0, 5),
        ("idle", "", 5, 6),
        ("generate", "x", 6, 10),
    ]
    assert timeline_rows([]) == []
