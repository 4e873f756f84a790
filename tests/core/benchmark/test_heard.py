"""The harness's warnings come through once each, and nowhere but to whoever listens."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from core.benchmark.heard import Heard, hearing

HARNESS = logging.getLogger("lm_eval.api.task")
OLDER = logging.getLogger("lm-eval")


def test_each_warning_is_a_line_with_how_often_it_came(capfd: pytest.CaptureFixture[str]) -> None:
    heard = Heard()
    with hearing(heard):
        for doc in range(1200):
            HARNESS.warning(f"Label is out of range:\n\n{{'id': {doc}}}\n")
        OLDER.warning("%s is deprecated", "this")
        HARNESS.error("doc_to_choice must return list")
        HARNESS.info("Building contexts")
        HARNESS.warning("Pass it with `--metadata`")
        HARNESS.warning("\n")
    assert heard.lines == (
        "lm-eval: Label is out of range: (1,200 times)",
        "lm-eval: this is deprecated",
        "lm-eval: doc_to_choice must return list",
    )
    assert capfd.readouterr() == ("", "")


def test_of_one_kind_a_few_are_told(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    with hearing(heard):
        for task in range(57):
            HARNESS.warning(f"[Task: t{task}] aggregation is not defined")
        HARNESS.warning("something else")
    assert heard.lines == (
        *(f"lm-eval: [Task: t{task}] aggregation is not defined" for task in range(3)),
        "lm-eval: and 54 more like the last",
        "lm-eval: something else",
    )


def test_threads_hear_their_own() -> None:
    together = Barrier(2)

    def warn(text: str) -> tuple[str, ...]:
        heard = Heard()
        with hearing(heard):
            together.wait()
            HARNESS.warning(text)
            together.wait()
        return heard.lines

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(warn, ["one", "two"])) == [("lm-eval: one",), ("lm-eval: two",)]


def test_what_nobody_listens_to_is_lost_unless_it_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    inner, outer = Heard(), Heard()
    with hearing(outer), hearing(inner):
        HARNESS.warning("inside")
    HARNESS.warning("nobody")
    HARNESS.error("broken")
    assert (inner.lines, outer.lines) == (("lm-eval: inside",), ())
    assert [record.getMessage() for record in caplog.records if record.name == "steelyard"] == ["lm-eval: broken"]
