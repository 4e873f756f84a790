"""The reason of each failed cell, as the store keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.results import Store, open_store
from core.store.quality import failed_docs
from core.upkeep.status import cell_lines, failed_cells, statuses

CELLS = {"beams": "a" * 64, "fault": "b" * 64}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "results"))


def details(store: Store) -> dict[str, tuple[str, str]]:
    return {row.benchmark: (row.state, row.detail) for row in statuses(store)}


def test_each_cell_has_its_own_reason_and_one_that_did_not_fail_has_none(store: Store) -> None:
    part = {"model": "m", "cells": {**CELLS, "other": "c" * 64}, "failures": {"beams": "no beams", "fault": "KeyError"}}
    store.write_model_run("two", "1", part)
    store.write_campaign({"campaign": "two", "run": "1", "failures": {"m": "beams: no beams; fault: KeyError"}})
    assert details(store) == {
        "beams": ("failed", "no beams"),
        "fault": ("failed", "KeyError"),
        "other": ("missing", ""),
    }
    (run,) = store.campaigns("two")
    assert failed_cells(run) == {"m": {"beams": "no beams", "fault": "KeyError"}}


def test_what_failed_beside_cells_is_the_reason_of_the_others(store: Store) -> None:
    part = {"model": "m", "cells": CELLS, "failures": {"beams": "no beams"}, "failure": "out of memory"}
    store.write_model_run("two", "1", part)
    store.write_campaign({"campaign": "two", "run": "1", "failures": {"m": "beams: no beams; out of memory"}})
    assert details(store) == {"beams": ("failed", "no beams"), "fault": ("failed", "out of memory")}
    assert failed_cells(store.campaigns("two")[0]) == {}


def test_a_part_that_told_nothing_has_its_run_s_reason(store: Store) -> None:
    store.write_model_run("two", "1", {"model": "m", "cells": CELLS})
    store.write_campaign({"campaign": "two", "run": "1", "failures": {"m": "killed"}})
    assert details(store) == {"beams": ("failed", "killed"), "fault": ("failed", "killed")}


def test_a_verdict_s_failure_is_its_judge_s(store: Store) -> None:
    part = {"model": "m", "judge": "j", "cells": {"x by j": "d" * 64}, "failures": {"x by j": "no verdict"}}
    store.write_model_run("two", "1", part)
    store.write_campaign({"campaign": "two", "run": "1", "failures": {"j": "as judge: m · x by j: no verdict"}})
    assert details(store) == {"x by j": ("failed", "no verdict")}
    assert failed_cells(store.campaigns("two")[0]) == {"j": {"m · x by j": "no verdict"}}


def test_cells_that_share_a_reason_are_named_before_it() -> None:
    assert cell_lines({"a": "killed", "b": "KeyError", "c": "killed"}) == ["a, c: killed", "b: KeyError"]


def test_docs_that_could_not_be_scored_are_failed_samples() -> None:
    assert failed_docs({"metadata": {"quality": {"failed": 2, "unscored": 3}}}) == 5
    assert failed_docs({"metadata": {"quality": {"failed": 2}}}) == 2, "of an older version"
