"""Ratios, turns and tables of the measurements."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from perf.measure import ROWS_FILE, Ratio, figure, in_turns, load, ratio, read_rows, report, table


def test_a_ratio_above_one_means_that_ours_is_better() -> None:
    assert ratio("a", "s", [1.0, 2.0, 9.0], [4.0, 4.0, 4.0]).value == 2
    assert ratio("a", "tokens/s", [4.0], [2.0], better="higher").value == 2
    assert ratio("a", "s", [0.0], [1.0]).value is None
    assert figure("a", "s", [3.0]).value is None


def test_ways_take_turns_and_every_second_turn_goes_back() -> None:
    seen: list[str] = []

    def way(name: str) -> int:
        seen.append(name)
        return len(seen)

    found = in_turns({name: partial(way, name) for name in "abc"}, 3)
    assert "".join(seen) == "abccbaabc"
    assert found == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_rows_are_printed_and_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows"
    monkeypatch.setenv(ROWS_FILE, str(path))
    rows = [Ratio("wall time", "s", 2.0, 1234.4, target="≥ 3", runs=3), figure("found within", "s", [0.1234])]
    report("Title", rows, time.monotonic(), load())
    printed = capsys.readouterr().out
    assert read_rows(path) == rows
    assert table("Title", rows).markdown() in printed
    assert "| wall time | s | 2 | 1,234 | 617.20× | ≥ 3 | 3 |  |" in printed
    assert "| found within | s | 0.123 |  |  |  | 1 |  |" in printed
