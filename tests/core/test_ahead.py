"""Which models leave room for the next, by arithmetic."""

from __future__ import annotations

from typing import Any

import pytest

from core.ahead import half_kv_cache_bytes, with_room
from core.campaign import load_spec
from core.fleet import resolve_fleet
from core.placement import GB, place
from tests.core.real_configs import real


def placed(name: str, model: dict[str, Any] | None = None, policy: dict[str, Any] | None = None, **fleet: Any) -> Any:
    spec = load_spec(
        {
            "name": "n",
            "models": [{"model": "m", **(model or {})}],
            "benchmarks": ["b"],
            "fleet": {"gpus": 2, "gpu_memory_gb": 80, "device": "cuda", **fleet},
            "policy": {"load_ahead": True, **(policy or {})},
        }
    )
    around = (real(name), spec.models[0], resolve_fleet(spec.fleet), spec.policy)
    placement = place(*around)
    return placement, with_room(placement, *around), around


def test_a_model_that_runs_in_half_of_the_memory_leaves_the_other_half() -> None:
    before, found, around = placed("Qwen3-0.6B")
    assert found.leaves_room
    assert found.reason == f"{before.reason} It leaves half of the memory for the next model to load in."
    expected = (80 * 0.45 - 2.0) * GB - before.weight_bytes
    assert half_kv_cache_bytes(found, *around) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("model", "policy", "fleet"),
    [
        ({}, {"load_ahead": False}, {}),
        ({"vllm": {"gpu_memory_utilization": 0.5}}, {}, {}),
        ({"vllm": {"kv_cache_memory_bytes": 10**9}}, {}, {}),
        ({"engine": "distributed"}, {}, {}),
        ({"tensor_parallel": 2}, {}, {}),
        ({}, {}, {"gpu_memory_gb": 8}),
        ({"engine": "lightweight"}, {}, {"gpu_memory_gb": 8}),
    ],
    ids=["not asked", "share by hand", "cache by hand", "distributed", "two GPUs", "window does not fit", "not at all"],
)
def test_others_are_placed_as_ever(model: dict[str, Any], policy: dict[str, Any], fleet: dict[str, Any]) -> None:
    before, found, _ = placed("Qwen3-0.6B", model, policy, **fleet)
    assert found == before
    assert not found.leaves_room
