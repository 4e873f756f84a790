"""Answers of both engines compared: scatter passes, faults are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from core.campaign import CampaignSpec, load_spec
from core.errors import UserError
from core.model.placement import Plan
from core.planning.canary import ENGINES, Canary, _at_least, canary_key, choose, compare
from core.planning.plan import plan_model
from core.request import Response, Scored
from tests.checkpoints import write_checkpoint

DOCS, CHOICES = 64, 4


def logprobs(seed: int = 0) -> np.ndarray[Any, Any]:
    """[docs, choices], as far apart as real ones."""
    return -np.random.default_rng(seed).gamma(2.0, 3.0, (DOCS, CHOICES))


def responses(values: np.ndarray[Any, Any]) -> list[Response]:
    return [
        Scored(f"facts/{doc}/{choice}/0", float(values[doc, choice]), False, 2, 9)
        for doc in reversed(range(len(values)))
        for choice in range(CHOICES)
    ]


def compared(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], dtype: str = "bfloat16") -> Canary:
    light = logprobs()
    return compare("m", dtype, {"lightweight": responses(light), "distributed": responses(change(light.copy()))})


def noise(scale: float) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).normal(0, scale, (DOCS, CHOICES))


def test_equal_answers_agree() -> None:
    same = compared(lambda values: values, "float32")
    assert (same.faults, same.same_answers, same.scatter, same.bias) == ((), DOCS, 0.0, 0.0)
    assert str(same).startswith(f"Engines agree on m: {DOCS} of {DOCS} answers alike")


@pytest.mark.parametrize(("dtype", "scale"), [("bfloat16", 0.15), ("float32", 5e-4)])
def test_the_type_s_own_scatter_agrees(dtype: str, scale: float) -> None:
    assert compared(lambda values: values + noise(scale), dtype).faults == ()


def test_scatter_beyond_the_type_is_a_fault() -> None:
    (fault,) = compared(lambda values: values + noise(0.05), "float32").faults
    assert "scatter by 0.0" in fault
    assert "float32 gives at most 0.001" in fault


def test_a_bias_is_a_fault() -> None:
    (fault,) = compared(lambda values: values + noise(0.1) - 0.1).faults
    assert "nats lower distributed" in fault


def test_flips_that_were_not_close_are_a_fault() -> None:
    def swapped(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        gaps = np.sort(values, axis=1)
        for doc in np.argsort(gaps[:, -2] - gaps[:, -1])[:6]:  # where the answer is clearest
            values[doc] = values[doc][::-1]
        return values + noise(0.02)

    found = compared(swapped)
    assert found.same_answers < DOCS
    assert any("answers differ where scatter explains" in fault for fault in found.faults)
    assert "Do not compare scores across engines" in str(found)


def test_chances_add_up_as_the_binomial_s() -> None:
    for count in range(6):
        assert _at_least(count, np.full(5, 0.3)) == pytest.approx(binom.sf(count - 1, 5, 0.3), abs=1e-12)


def test_a_set_that_was_not_answered_is_no_agreement() -> None:
    light = responses(logprobs())
    with pytest.raises(UserError, match="not answered: too long"):
        compare(
            "m", "float32", {"lightweight": light, "distributed": [replace(light[0], error="too long"), *light[1:]]}
        )
    with pytest.raises(UserError, match="did not answer the same"):
        compare("m", "float32", {"lightweight": light, "distributed": light[CHOICES:]})


def planned(tmp_path: Path, *models: dict[str, Any], **fleet: Any) -> tuple[CampaignSpec, Plan]:
    for n in range(len(models)):
        if not (tmp_path / str(n)).exists():
            write_checkpoint(tmp_path / str(n), n)
    spec = load_spec(
        {
            "name": "c",
            "models": [{"model": str(tmp_path / str(n)), "name": f"m{n}", **model} for n, model in enumerate(models)],
            "benchmarks": ["steelyard_facts"],
            "fleet": {"gpus": 2, "gpu_memory_gb": 8, "device": "cpu", **fleet},
        }
    )
    assert spec.fleet is not None
    return spec, Plan(spec.fleet, tuple(plan_model(spec, model, spec.fleet) for model in spec.models))


def test_a_campaign_of_one_engine_needs_no_canary(tmp_path: Path) -> None:
    assert choose(*planned(tmp_path, {}, {})) is None


def test_a_model_that_both_engines_hold_is_the_canary(tmp_path: Path) -> None:
    found = choose(*planned(tmp_path, {"engine": "lightweight"}, {"engine": "distributed"}))
    assert found is not None
    assert {engine: each.placement.engine for engine, each in found.items()} == {engine: engine for engine in ENGINES}
    assert found["distributed"].placement.gpus == 2
    assert found["lightweight"].model.name == found["distributed"].model.name


def test_what_changes_answers_names_another_canary(tmp_path: Path) -> None:
    def key(**fields: Any) -> str:
        found = choose(*planned(tmp_path, {"engine": "lightweight", **fields}, {"engine": "distributed", **fields}))
        assert found is not None
        return canary_key(found)

    assert key() == key(vllm={"max_num_seqs": 4})
    assert len({key(), key(dtype="float32"), key(vllm={"quantization": "fp8"})}) == 3
