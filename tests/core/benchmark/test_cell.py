from dataclasses import replace
from typing import Any

import pytest

from core.benchmark.cell import make_cell
from core.benchmark.datasets.call import Loaded
from core.campaign import FleetSpec, ModelSpec, PolicySpec
from core.model.placement import place
from core.sample import Cell
from tests.core.real_configs import real

FLEET = FleetSpec(gpus=8, gpu_memory_gb=80, device="cuda")


def cell(benchmark: dict[str, Any] | None = None, identity: str = "a", **model: Any) -> Cell:
    checkpoint = replace(real("Llama-3.1-8B"), identity=identity)
    spec = ModelSpec.model_validate({"model": "m", **model})
    return make_cell(spec, checkpoint, place(checkpoint, spec, FLEET, PolicySpec()), "b", benchmark or {"tasks": ["b"]})


@pytest.mark.parametrize(
    "speed",
    [
        {"engine": "distributed"},
        {"tensor_parallel": 4},
        {"replicas": 4},
        {"name": "other"},
        {"vllm": {"max_num_seqs": 8}},
    ],
)
def test_what_only_changes_speed_is_not_part_of_a_cell(speed: dict[str, Any]) -> None:
    assert cell(**speed).fingerprint == cell().fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float32"},
        {"max_model_len": 4096},
        {"chat_template": True},
        {"chat_template": True, "system_prompt": "Be brief."},
        {"vllm": {"quantization": "fp8"}},
        {"trust_remote_code": True},
        {"identity": "b"},
        {"benchmark": {"tasks": ["b"], "num_fewshot": 5}},
    ],
)
def test_what_changes_outputs_is(change: dict[str, Any]) -> None:
    assert cell(**change).fingerprint != cell().fingerprint


def test_the_default_type_said_aloud_is_the_same_cell() -> None:
    assert cell(dtype="bfloat16").fingerprint == cell().fingerprint


def test_where_rows_came_from_is_described_and_not_part_of_a_cell() -> None:
    checkpoint, spec = real("Llama-3.1-8B"), ModelSpec(model="m")
    placement = place(checkpoint, spec, FLEET, PolicySpec())
    cells = [
        make_cell(spec, checkpoint, placement, "b", {}, [Loaded("openai/gsm8k", "main", commit, where)])
        for commit, where in (("1" * 40, "hub"), (None, "/mirror"))
    ]
    assert cells[0].fingerprint == cells[1].fingerprint == make_cell(spec, checkpoint, placement, "b", {}).fingerprint
    assert [each.settings["datasets"][0]["place"] for each in cells] == ["hub", "/mirror"]
