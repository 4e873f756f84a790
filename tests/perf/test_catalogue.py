"""The whole catalogue passes plan's checks, or is refused in words."""

from __future__ import annotations

import sys

import pytest

from perf import catalogue


@pytest.mark.slow
def test_no_name_of_the_catalogue_ends_in_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["catalogue"])
    assert catalogue.main() == 0
    said = capsys.readouterr().out
    assert "a generation setting that vLLM lacks: 7 × generation_kwargs.num_beams = 10\n" in said
