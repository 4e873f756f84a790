import pytest

from core.campaign import CampaignSpec, ModelSpec, PolicySpec
from core.errors import CannotPlaceError
from core.planning.cost.estimate import Estimator, ModelEstimate, campaign_estimate, placed_everywhere
from core.planning.cost.history import History
from core.planning.cost.model import Measured, Setup, Tokens
from core.planning.schedule.fleet_file import NodeGroup
from core.planning.schedule.scheduler import SchedulingPolicy
from tests.core.real_configs import real

H100 = NodeGroup(nodes=1, gpus=8, gpu_memory_gb=80, gpu_kind="H100", price_per_gpu_hour=2)
L4 = NodeGroup(nodes=2, gpus=4, gpu_memory_gb=24, gpu_kind="L4", price_per_gpu_hour=0.5)
SLICED = NodeGroup(nodes=1, gpus=8, gpu_memory_gb=80, gpu_kind="H100", mig_slices=7)
SPEC = CampaignSpec.model_validate(
    {"name": "nightly", "models": ["Qwen3-0.6B", "Llama-3.1-70B"], "benchmarks": ["gsm8k", "hellaswag"]}
)


def estimates(groups: list[NodeGroup], history: History | None = None) -> list[ModelEstimate]:
    estimator = Estimator(history or History())
    return [
        estimator.estimate(
            SPEC, model, real(model.name), placed_everywhere(real(model.name), model, groups, SPEC.policy)
        )
        for model in SPEC.models
    ]


def test_a_model_is_placed_on_each_kind_that_holds_it() -> None:
    small, large = estimates([H100, L4])
    assert [(each.kind, each.placement.gpus) for each in small.timed] == [("H100", 1), ("L4", 1)]
    degrees = [(each.kind, each.placement.tensor_parallel, each.placement.pipeline_parallel) for each in large.timed]
    assert degrees == [("H100", 4, 1), ("L4", 4, 2)]
    assert small.timed[0].seconds[1] < small.timed[1].seconds[1]
    assert small.job().options[0].work_seconds == small.timed[0].work.value


def test_gangs_do_not_go_to_mig_slices() -> None:
    model = ModelSpec(model="Qwen3-0.6B")
    assert placed_everywhere(real(model.name), model, [SLICED], PolicySpec())[0][0].kind == "H100/7"
    with pytest.raises(CannotPlaceError, match="Llama-3.1-70B.*fits nowhere in the fleet: H100/7"):
        placed_everywhere(real("Llama-3.1-70B"), ModelSpec(model="Llama-3.1-70B"), [SLICED], PolicySpec())


def test_the_campaign_takes_as_long_as_its_timetable_and_costs_its_gpu_hours() -> None:
    models = estimates([H100])
    whole = campaign_estimate(models, [H100], SchedulingPolicy())
    longest = max(each.timed[0].seconds[1] for each in models)
    assert whole.makespan[1] == pytest.approx(longest)  # five of eight GPUs: both at once
    assert whole.gpu_hours[1] == pytest.approx(
        sum(each.timed[0].placement.gpus * each.timed[0].seconds[1] for each in models) / 3600
    )
    assert whole.cost is not None
    assert whole.cost[1] == pytest.approx(2 * whole.gpu_hours[1])
    for low, middle, high in (whole.makespan, whole.gpu_hours, whole.cost):
        assert low < middle < high


def test_without_a_price_there_is_no_cost() -> None:
    unpriced = H100.model_copy(update={"price_per_gpu_hour": None})
    assert campaign_estimate(estimates([unpriced]), [unpriced], SchedulingPolicy()).cost is None


def test_history_narrows_the_interval() -> None:
    checkpoint = real("Qwen3-0.6B")
    setup = Setup(checkpoint.identity, 1.5, 0.75e9, "H100")
    jobs = tuple(Measured(setup, Tokens(1e6, 1e6, 1e5), 100.0, 20.0, ended=1e5 * number) for number in range(5))
    before, after = estimates([H100])[0].timed[0], estimates([H100], History(jobs))[0].timed[0]
    assert after.work.triple[2] / after.work.triple[0] < before.work.triple[2] / before.work.triple[0]
    assert after.load.value == pytest.approx(20, rel=0.15)
