import math
from dataclasses import replace
from statistics import median

import numpy as np
import pytest

from core.planning.cost.fit import Point, Priors, fit
from core.planning.cost.model import TFLOPS, Measured, Setup, Tokens, kind_of, learn, past_error

TOKENS = Tokens(1e6, 2e6, 2e5)
EIGHT = Setup("8b", 16, 8e9, "H100")
SEVENTY = Setup("70b", 140, 70e9, "H100", tensor_parallel=4)


def world(runs: int, models: int = 8, noise: float = 0.1, seed: int = 0) -> list[Measured]:
    """Past jobs of a fleet that is half as fast as the priors say, each model with its own quirk."""
    dice = np.random.default_rng(seed)
    sizes = [0.5e9, 1.5e9, 3e9, 8e9, 8e9, 14e9, 32e9, 70e9][:models]
    quirks = np.exp(dice.normal(0, 0.3, models))
    found = []
    for run in range(runs):
        for index, (size, quirk) in enumerate(zip(sizes, quirks, strict=True)):
            setup = Setup(f"m{index}", 2 * size / 1e9, size, "H100", 4 if size > 2e10 else 1)
            work = 2 * quirk * learn([]).work_seconds(setup, TOKENS).value * math.exp(dice.normal(0, noise))
            load = (40 + 0.2 * setup.weight_gb) * math.exp(dice.normal(0, noise))
            found.append(Measured(setup, TOKENS, work, load, ended=1e6 * (run + 1)))
    return found


def test_priors_are_sane() -> None:
    model = learn([])
    prefill, decode = (model.work_seconds(EIGHT, tokens) for tokens in (Tokens(1e9, 0, 0), Tokens(0, 0, 1e9)))
    assert 10_000 < 1e9 / prefill.value < 60_000  # tokens/s of an 8B model on an H100
    assert 2_000 < 1e9 / decode.value < 20_000
    larger = replace(EIGHT, weight_gb=EIGHT.weight_gb + 100)
    assert 0.1 < (model.load_seconds(larger).value - model.load_seconds(EIGHT).value) / 100 < 2  # seconds per GB
    low, median, high = prefill.triple
    assert low < median < high
    assert high / low > 5  # and know that they know little


def test_larger_models_slower_gpus_and_more_tokens_cost_more() -> None:
    model = learn([])
    base = model.work_seconds(EIGHT, TOKENS).value
    assert model.work_seconds(SEVENTY, TOKENS).value > base
    assert model.work_seconds(replace(EIGHT, kind="L4"), TOKENS).value > base
    assert model.work_seconds(replace(EIGHT, kind="H100/4"), TOKENS).value > 2 * base  # a MIG slice
    assert model.work_seconds(replace(EIGHT, tensor_parallel=2), TOKENS).value < base
    assert model.work_seconds(EIGHT, replace(TOKENS, decoded=4e5)).value > base
    assert model.work_seconds(EIGHT, replace(TOKENS, cached=4e6)).value < 1.1 * base
    assert model.load_seconds(SEVENTY).value > model.load_seconds(EIGHT).value


@pytest.mark.parametrize(
    ("name", "kind"),
    [("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA A100-SXM4-40GB", "A100"), ("Tesla T4", "T4"), ("NVIDIA L40S", "L40S")],
)
def test_gpus_are_known_by_their_drivers_name(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_an_unknown_gpu_has_no_entry_and_a_wider_interval() -> None:
    assert kind_of("Abacus 9000") is None
    assert learn(world(3)).work_seconds(replace(EIGHT, kind="Abacus 9000"), TOKENS).spread > (
        learn(world(3)).work_seconds(EIGHT, TOKENS).spread
    )
    assert all(value > 0 for value in TFLOPS.values())


def test_three_runs_teach_to_within_a_fifth() -> None:
    """What the issue asks for: after three nightly runs of one campaign, the median error is below 20%."""
    learnt, coming = learn(world(3)), world(4)[-8:]
    errors = [abs(learnt.work_seconds(each.setup, each.tokens).value / each.seconds - 1) for each in coming]
    assert median(errors) < 0.2
    loads = [abs(learnt.load_seconds(each.setup).value / (each.load_seconds or 1) - 1) for each in coming]
    assert median(loads) < 0.2


def test_a_model_never_seen_gains_from_others_on_the_same_gpus() -> None:
    new = Setup("new", 26, 13e9, "H100")
    before, after = learn([]).work_seconds(new, TOKENS), learn(world(3)).work_seconds(new, TOKENS)
    assert after.value / before.value == pytest.approx(2, rel=0.35)
    assert after.spread < before.spread


def test_one_job_that_went_wrong_teaches_little() -> None:
    jobs = world(3, noise=0.03)
    spoilt = [*jobs[:-1], replace(jobs[-1], seconds=50 * jobs[-1].seconds)]
    setup = jobs[0].setup
    assert learn(spoilt).work_seconds(setup, TOKENS).value == pytest.approx(
        learn(jobs).work_seconds(setup, TOKENS).value, rel=0.25
    )


def test_intervals_hold_about_as_often_as_they_say() -> None:
    inside = []
    for seed in range(12):
        jobs = world(4, noise=0.2, seed=seed)
        learnt = learn(jobs[:-8])
        for each in jobs[-8:]:
            low, _, high = learnt.work_seconds(each.setup, each.tokens).triple
            inside.append(low <= each.seconds <= high)
    assert 0.7 < sum(inside) / len(inside) < 0.95


def test_past_errors_are_those_of_estimates_made_before() -> None:
    assert past_error([]) is None
    assert past_error(world(1)) is None  # all ran at once: nothing had ended before
    error = past_error(world(3))
    assert error is not None
    assert len(error.errors) == 16
    assert error.stored == 0
    assert error.median < 0.4


def test_a_stored_estimate_stands_for_itself() -> None:
    jobs = [replace(each, foretold=1.5 * (each.seconds + (each.load_seconds or 0))) for each in world(1)]
    error = past_error(jobs)
    assert error is not None
    assert error.stored == 8
    assert error.median == pytest.approx(0.5)


def test_a_fit_without_data_is_its_prior_and_one_with_much_is_its_data() -> None:
    priors = Priors({"a": 0.5, "b": 0.5}, {"kind": 0.5}, 0.2)
    nothing = fit([], [], priors)
    assert nothing.predict(Point({"a": 2.0, "b": 3.0}))[0] == pytest.approx(5)
    assert nothing.predict(Point({"a": 2.0}))[1] == pytest.approx(math.hypot(0.5, 0.2))
    dice = np.random.default_rng(0)
    points = [Point({"a": float(x), "b": float(y)}) for x, y in dice.uniform(1, 100, (200, 2))]
    seconds = [3 * point.parts["a"] + 0.5 * point.parts["b"] for point in points]
    learnt = fit(points, seconds, priors)
    assert learnt.predict(Point({"a": 10.0}))[0] == pytest.approx(30, rel=0.05)
    assert learnt.predict(Point({"b": 10.0}))[0] == pytest.approx(5, rel=0.05)
    assert learnt.predict(Point({"a": 10.0, "b": 10.0}))[1] < 0.1


def test_another_checkpoint_of_the_same_name_is_known_better_than_one_of_another() -> None:
    def night(number: int, name: str, seconds: float) -> Measured:
        return Measured(replace(EIGHT, model=f"{name}-{number}", name=name), TOKENS, seconds, 30.0, float(number))

    learnt = learn([night(n, name, took) for n in range(4) for name, took in (("quick", 100.0), ("slow", 200.0))])

    def expected(name: str) -> float:
        return learnt.work_seconds(replace(EIGHT, model="new", name=name), TOKENS).value

    assert expected("quick") < expected("never seen") < expected("slow")
    assert expected("quick") == pytest.approx(100, rel=0.15)
    assert expected("slow") == pytest.approx(200, rel=0.15)
