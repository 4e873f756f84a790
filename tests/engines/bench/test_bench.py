"""What an engine is to load, and how it starts."""

import asyncio
from pathlib import Path
from typing import Any, cast

import fsspec
import pytest

from core.campaign import CampaignSpec, FleetSpec, load_spec
from core.cell_work import CellWork
from core.model.placement import PlannedModel, loads_from_here
from core.model.sizing import compiled_or_not
from core.planning.plan import plan_model
from core.request import Generate, Request, Sampling
from engines.bench.bench import engine_config
from tests.checkpoints import write_checkpoint
from tests.core.store_parts import make_cell


class Asked:
    """A benchmark that asks ``count`` times for at most 100 tokens."""

    def __init__(self, count: int) -> None:
        self._count = count

    def requests(self) -> list[Request]:
        return [Generate(str(number), "", Sampling(max_tokens=100)) for number in range(self._count)]


def one_planned(folder: Path, device: str, **policy: Any) -> tuple[CampaignSpec, FleetSpec, PlannedModel]:
    """A campaign of one small model, made in ``folder``, on one device."""
    spec = load_spec(
        {
            "name": "n",
            "models": [str(write_checkpoint(folder / "m"))],
            "benchmarks": ["steelyard_facts"],
            "fleet": {"gpus": 1, "gpu_memory_gb": 8, "device": device},
            "policy": policy,
        }
    )
    assert spec.fleet is not None
    return spec, spec.fleet, plan_model(spec, spec.models[0], spec.fleet)


@pytest.mark.parametrize(
    ("works", "device", "eager"),
    [
        ([(3, False), (50, True)], "cuda", True),
        ([(3, False), (7, False)], "cuda", False),
        (None, "cuda", False),
        ([(3, False)], "cpu", False),
    ],
)
def test_what_is_left_to_answer_decides_whether_a_model_is_compiled(
    works: list[tuple[int, bool]] | None, device: str, eager: bool, tmp_path: Path
) -> None:
    spec, fleet, planned = one_planned(tmp_path, device, compile_tokens=1000)
    cell = make_cell()
    given = None
    if works is not None:
        given = [CellWork(cell, cast("Any", Asked(count)), complete) for count, complete in works]
    found = asyncio.run(compiled_or_not(spec, planned, fleet, given))
    config = engine_config(spec, found, fleet, tmp_path)
    assert config.extra.get("enforce_eager", False) is eager
    assert ("starts eagerly: at most 300 tokens" in found.placement.reason) is eager
    assert found.placement.reason.startswith(planned.placement.reason)


@pytest.mark.parametrize(
    ("fleet", "model", "here", "known"),
    [
        ({}, {"tensor_parallel": 2}, True, False),
        ({"ray_address": "head:6379"}, {"tensor_parallel": 2}, False, True),
        ({"kuberay": {"image": "i"}}, {"tensor_parallel": 2}, False, True),
        ({"ray_address": "head:6379"}, {}, True, False),
        ({}, {"stream_weights": True}, False, True),
    ],
)
@pytest.mark.s3
def test_what_loads_weights_itself_is_told_which(
    fleet: dict[str, Any], model: dict[str, Any], here: bool, known: bool, s3_root: str, tmp_path: Path
) -> None:
    fsspec.filesystem("s3", skip_instance_cache=True).put(
        f"{write_checkpoint(tmp_path / 'm')}/", f"{s3_root}/m/", recursive=True
    )
    spec = load_spec(
        {
            "name": "n",
            "models": [{"model": f"{s3_root}/m", **model}],
            "benchmarks": ["steelyard_facts"],
            "fleet": {"gpus": 2, "gpu_memory_gb": 8, "device": "cuda", **fleet},
        }
    )
    assert spec.fleet is not None
    planned = plan_model(spec, spec.models[0], spec.fleet)
    assert loads_from_here(planned, spec.fleet) is here
    config = engine_config(spec, planned, spec.fleet, tmp_path)
    assert config.checkpoint == (planned.checkpoint if known else None)
    assert config.stream is bool(model.get("stream_weights"))
