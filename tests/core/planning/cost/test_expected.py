import pytest

from core.planning.cost.estimate import campaign_estimate
from core.planning.cost.expected import expectations, totals
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
