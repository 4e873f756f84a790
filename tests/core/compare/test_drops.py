from typing import Any

from core.compare.drops import drops


def run(fingerprint: str) -> dict[str, Any]:
    return {"models": [{"model": "m", "cells": {"b": fingerprint}}]}


def record(fingerprint: str, value: float | None, stderr: float | None, **changes: Any) -> dict[str, Any]:
    headline = {"metric": "acc", "value": value, "stderr": stderr, "higher_is_better": True, **changes}
    return {fingerprint: {"fingerprint": fingerprint, "headline": headline}}


def test_a_score_that_falls_by_more_than_its_spread_is_named() -> None:
    records = record("old", 0.80, 0.03) | record("new", 0.60, 0.04)
    (drop,) = drops(run("old"), run("new"), records)
    assert drop.sigmas == (0.80 - 0.60) / 0.05
    assert str(drop) == "m on b: acc 0.8000 → 0.6000 (4.0 σ)"


def test_noise_and_gains_are_not() -> None:
    assert not list(drops(run("old"), run("new"), record("old", 0.80, 0.03) | record("new", 0.75, 0.04)))
    assert not list(drops(run("old"), run("new"), record("old", 0.60, 0.03) | record("new", 0.80, 0.04)))


def test_where_less_is_better_a_rise_is_a_drop() -> None:
    records = record("old", 10.0, 0.3, higher_is_better=False) | record("new", 12.0, 0.4, higher_is_better=False)
    assert [drop.after for drop in drops(run("old"), run("new"), records)] == [12.0]


def test_what_cannot_be_compared_is_left_out() -> None:
    assert not list(drops(run("old"), run("old"), record("old", 0.8, 0.03)))
    assert not list(drops(run("old"), run("new"), record("old", 0.8, None) | record("new", 0.1, 0.03)))
    assert not list(drops(run("old"), run("new"), record("old", 0.8, 0.03)))
    assert not list(
        drops(run("old"), run("new"), record("old", 0.8, 0.03) | record("new", 0.1, 0.03, metric="exact_match"))
    )
