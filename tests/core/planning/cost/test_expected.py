from typing import Any

import pytest

from core.monitor.timeline import Span, lanes
from core.planning.cost.estimate import campaign_estimate
from core.planning.cost.expected import Spent, expectations, spent, spent_line, totals
from core.planning.schedule.fleet_file import NodeGroup, nodes_of
from core.planning.schedule.scheduler import SchedulingPolicy
from tests.core.planning.cost.test_estimate import estimates

H100 = NodeGroup(gpus=8, gpu_memory_gb=80, gpu_kind="H100", device="cuda", price_per_gpu_hour=3.0)


def test_models_are_put_in_time_by_the_scheduler_and_end_with_the_campaign() -> None:
    models = estimates([H100])
    estimate = campaign_estimate(models, [H100], SchedulingPolicy())
    found = expectations(estimate, nodes_of([H100]), now=1000.0)
    assert found.keys() == {model.name for model in models}
    for model in models:
        expected = found[model.name]
        assert (expected.low, expected.seconds, expected.high) == model.timed[0].seconds
        assert expected.ends - expected.starts == pytest.approx(expected.seconds)
        assert expected.benchmarks == len(model.workloads)
    assert min(each.starts for each in found.values()) == 1000.0
    assert max(each.ends for each in found.values()) == pytest.approx(1000.0 + estimate.makespan[1], rel=0.3)


def test_totals_are_json_values() -> None:
    estimate = campaign_estimate(estimates([H100]), [H100], SchedulingPolicy())
    whole = totals(estimate)
    assert whole["makespan_seconds"] == list(estimate.makespan)
    assert whole["cost"] == pytest.approx([3.0 * hours for hours in whole["gpu_hours"]])


LANES = lanes(
    Span(model, "benchmarks", engine, phase, "", started, ended)
    for model, engine, phase, started, ended in (
        ("small", "lightweight", "load", 0, 600),
        ("small", "lightweight", "close", 1700, 1800),
        ("large", "distributed", "load", 100, 700),
        ("large", "distributed", "close", 3600, 3700),
    )
)


def run(price: float | None = None, **more: Any) -> dict[str, Any]:
    placements = {
        "small": {"tensor_parallel": 1},
        "large": {"tensor_parallel": 4, "pipeline_parallel": 2, "replicas": 1},
    }
    models = [{"model": name, "placement": placement} for name, placement in placements.items()]
    fleet = {"price_per_gpu_hour": price}
    return {"campaign": "nightly", "seconds": 3800.0, "spec": {"fleet": fleet}, "models": models, **more}


def test_hours_are_those_that_devices_were_held() -> None:
    assert spent(run(), LANES) == Spent(3800.0, 8.5, None)
    assert spent(run(2.0), LANES) == Spent(3800.0, 8.5, 17.0)


def test_a_run_that_goes_on_or_held_nothing_took_nothing_yet() -> None:
    assert spent({"campaign": "nightly", "models": []}, LANES) is None
    assert spent(run(), []) is None
    assert spent_line(run(), []) is None


def test_the_line_has_the_estimate_beside_it() -> None:
    estimate = {"makespan_seconds": [1800, 3600, 7200], "gpu_hours": [4, 8, 16], "cost": [8, 16, 32]}
    assert spent_line(run(2.0, estimate=estimate), LANES) == (
        "nightly took 63 min, 8.50 GPU-hours, cost 17.00; expected, as if nothing were stored: 60 min (30 min – 2.0 h), "
        "8.00 (4.00 – 16.00) GPU-hours, cost 16.00 (8.00 – 32.00)"
    )
    assert spent_line(run(), LANES) == "nightly took 63 min, 8.50 GPU-hours"
