"""What a terminal shows while a campaign runs."""

import io
import logging

import pytest
from rich.console import Console

import deployments.launch
from core.monitor.progress import Progress, tell
from deployments.launch import CellBars, print_failures, shown


def cell(**changes: object) -> Progress:
    fields = {"model": "m", "benchmark": "[b]", "docs": 10, "done": 4, "resumed": 0, "tokens": 80, "seconds": 2.0}
    return Progress(**{**fields, **changes})  # type: ignore[arg-type]


def test_each_benchmark_has_one_bar_until_it_ends() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with CellBars(console) as bars:
        for done in (4, 5):
            bars(cell(done=done))
        bars(cell(benchmark="other"))
        assert [task.description for task in bars._bars.tasks] == ["m · [b]", "m · other"]
        assert bars._bars.tasks[0].completed == 5
        bars(cell(done=10, ended=True))
        bars(cell(benchmark="never shown", ended=True))
        assert [task.description for task in bars._bars.tasks] == ["m · other"]
    assert isinstance(console.file, io.StringIO)
    assert "5/10 docs, 40 tokens/s, 2 s left" in console.file.getvalue()


def test_without_a_terminal_there_are_lines_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "steelyard")
    clock = iter([0.0, 1.0, 11.0, 12.0])
    monkeypatch.setattr(deployments.launch.time, "monotonic", lambda: next(clock))
    with shown(Console(file=io.StringIO())):
        for done in (1, 2, 3, 4):
            tell(cell(done=done, seconds=2.0))
    assert [record.getMessage() for record in caplog.records] == ["m · [b]: 3/10 docs, 40 tokens/s, 5 s left"]


def test_the_last_lines_name_each_failed_cell_with_its_own_reason(capsys: pytest.CaptureFixture[str]) -> None:
    failures = {"smol": "beams: no beams; a, b: KeyError", "big": "out of memory"}
    print_failures(failures, {"smol": {"beams": "no beams", "a": "KeyError", "b": "KeyError"}})
    assert capsys.readouterr().err.splitlines() == [
        "steelyard: model 'smol' failed: beams: no beams",
        "steelyard: model 'smol' failed: a, b: KeyError",
        "steelyard: model 'big' failed: out of memory",
    ]
