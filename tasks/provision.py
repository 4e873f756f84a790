"""Provisioning: from a placement and the devices it was given to an engine that answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from core.campaign import CampaignSpec, FleetSpec
from core.plan import PlannedModel
from engines.distributed.cluster import ClusterSpec
from engines.distributed.engine import DistributedEngine
from engines.engine import Engine, EngineConfig, EngineInfo
from engines.lightweight import LightweightEngine
from tasks.say import say


def build_engine(
    spec: CampaignSpec, planned: PlannedModel, fleet: FleetSpec, weights: Path, devices: tuple[int, ...]
) -> Engine:
    """Return the engine of a placement, not yet open."""
    model, placement = planned.model, planned.placement
    config = EngineConfig(
        model=str(weights),
        dtype=model.dtype,
        max_model_len=placement.max_model_len,
        tensor_parallel=placement.tensor_parallel,
        pipeline_parallel=placement.pipeline_parallel,
        trust_remote_code=model.trust_remote_code,
        device=fleet.device,
        devices=devices if placement.engine == "lightweight" else (),
        gpu_memory_gb=fleet.gpu_memory_gb,
        seed=spec.seed,
        extra=_extra(spec, fleet, model.vllm),
    )
    if placement.engine == "lightweight":
        return LightweightEngine(config)
    cluster = ClusterSpec(
        devices=devices,
        gpus=fleet.gpus,
        device=fleet.device,
        address=fleet.ray_address,
    )
    return DistributedEngine(config, cluster, spec.policy.service_idle_seconds)


def _extra(spec: CampaignSpec, fleet: FleetSpec, vllm: dict[str, object]) -> dict[str, object]:
    if fleet.device == "cpu":
        return dict(vllm)
    return {"gpu_memory_utilization": spec.policy.gpu_memory_utilization, **vllm}


@task(name="open engine", cache_policy=NO_CACHE)
async def open_engine(engine: Engine, model: str) -> EngineInfo:
    """Load the model, or find its service alive."""
    info = await asyncio.to_thread(engine.open)
    how = "found loaded" if info.reused else f"loaded in {info.load_seconds:.0f} s"
    say(f"{model}: {info.engine} engine {how}")
    return info
