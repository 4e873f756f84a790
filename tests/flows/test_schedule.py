"""Models get devices as `core.planning.schedule.scheduler` decides; expectations are stored beside what models took."""

from __future__ import annotations

import json
from typing import Any

import pytest

import flows.campaign
import tasks.prepare
from core.cell_work import CellWork
from core.monitor.timeline import lanes
from core.planning.cost.expected import Expected
from core.results import open_store
from engines.host.slots import folder, ledger
from flows.campaign import campaign
from tasks.plan import Forecast
from tests.flows.scripted import BENCHMARKS, LIMIT, Engines
from tests.waiting import until

SECONDS = 60


def test_what_is_expected_is_stored_beside_what_it_took(engines: Engines, spec: dict[str, Any]) -> None:
    result = campaign(spec)
    store = open_store(spec["results"])
    (run,) = store.campaigns("flows")
    low, middle, high = run["estimate"]["makespan_seconds"]
    assert 0 < low < middle < high
    estimates = [record["metadata"]["estimate"] for record in store.commit_records().values()]
    assert {each["benchmarks"] for each in estimates} == {len(BENCHMARKS)}
    planned = {lane.label: lane.planned for lane in lanes(store.timeline("flows", result.run))}
    assert planned.keys() == {"first", "second"}
    for each in estimates:
        expected = Expected(**each)
        assert expected.ends - expected.starts == pytest.approx(expected.seconds)
        assert (expected.starts, expected.ends) in [pytest.approx(plan, abs=1e-3) for plan in planned.values()]


def test_a_long_model_that_is_ready_later_goes_first(
    engines: Engines, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    build, prepare = engines.build, tasks.prepare.prepare_cell

    def noted(spec: Any, planned: Any, *rest: Any) -> Any:
        order.append(planned.model.name)
        return build(spec, planned, *rest)

    def prepared(*arguments: Any) -> CellWork:
        work = prepare(*arguments)
        until(lambda: tickets().keys() == {"first", "second"}, SECONDS)
        if work.cell.model == "second":
            until(lambda: tickets()["first"], SECONDS)
        return work

    forecast = Forecast({"first": Expected(10, 5, 20, 2, 0, 0), "second": Expected(100, 50, 200, 2, 0, 0)})
    monkeypatch.setattr(flows.campaign, "forecast", lambda spec, plan: forecast)
    monkeypatch.setattr("engines.bench.bench.build_engine", noted)
    monkeypatch.setattr("tasks.prepare.prepare_cell", prepared)
    result = campaign({**spec, "fleet": {**spec["fleet"], "gpus": 1}})
    assert order == ["second", "first"]
    assert set(result.leaderboard["docs"]) == {LIMIT}


def tickets() -> dict[str, bool]:
    """Models that wait for this machine's devices, and whether they are ready."""
    with ledger():
        asked = [json.loads(path.read_text()) for path in folder().glob("*.ticket")]
    return {each["wish"]["demand"]["label"]: each["wish"]["ready"] for each in asked if each["kind"] == "cpu"}
