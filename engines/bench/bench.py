"""From tasks/evaluate.py."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.campaign import CampaignSpec, FleetSpec
from core.model.placement import PlannedModel, loads_from_here
from core.monitor.readings import Monitor
from core.monitor.timeline import Timeline
from core.planning.cost.expected import Expected
from core.store.spool import Spool
from engines.bench.recovery import Recovery
from engines.bench.waiting import Place
from engines.control import Control
from engines.distributed.cluster import ClusterSpec
from engines.distributed.engine import DistributedEngine
from engines.distributed.replica import ServiceReplica
from engines.engine import Engine, EngineConfig
from engines.host.names import cores_of
from engines.host.slots import Held
from engines.process.lightweight import Claim, LightweightEngine


@dataclass(frozen=True)
class Bench:
    """What benchmarks of one model run on: an open engine, the results store's URI, the model's switch, and who takes notes.

    ``spool`` takes answers while the store does not, and ``patience`` is how many seconds a silent store is waited for.
    """

    engine: Engine
    results: str
    control: Control
    monitor: Monitor | None = None
    timeline: Timeline = field(default_factory=Timeline)
    spool: Spool | None = None
    patience: float = 0.0
    recovery: Recovery | None = None
    expected: Expected | None = None


def build_engine(
    spec: CampaignSpec, planned: PlannedModel, config: EngineConfig, held: Held, cluster: ClusterSpec | None
) -> Engine:
    """Return the engine of a placement, or a replica of it, on the devices that are held for it, not yet open."""
    if cluster is None:
        return LightweightEngine(replace(config, devices=held.devices, cores=_cores(config, held)), held.descriptors)
    if cluster.address is None and held.devices != cluster.devices:
        return ServiceReplica(config, replace(cluster, devices=held.devices), held.descriptors)
    return DistributedEngine(config, cluster, spec.policy.service_idle_seconds)


def _cores(config: EngineConfig, held: Held) -> tuple[int, ...]:
    """The cores of logical devices; any where vLLM was told by hand."""
    if config.device != "cpu" or "VLLM_CPU_OMP_THREADS_BIND" in os.environ:
        return ()
    return cores_of(held.devices, len(held.pool.names), os.sched_getaffinity(0))


def engine_config(spec: CampaignSpec, planned: PlannedModel, fleet: FleetSpec, weights: Path) -> EngineConfig:
    """Return what an engine of this placement loads, whatever its devices."""
    model, placement = planned.model, planned.placement
    return EngineConfig(
        model=str(weights),
        dtype=model.dtype,
        max_model_len=placement.max_model_len,
        tensor_parallel=placement.tensor_parallel,
        pipeline_parallel=placement.pipeline_parallel,
        trust_remote_code=model.trust_remote_code,
        device=fleet.device,
        gpu_memory_gb=fleet.gpu_memory_gb,
        seed=spec.seed,
        checkpoint=None if loads_from_here(planned, fleet) else planned.checkpoint,
        stream=model.stream_weights,
        extra=_extra(spec, fleet, model.vllm),
    )


def _extra(spec: CampaignSpec, fleet: FleetSpec, vllm: dict[str, object]) -> dict[str, object]:
    if fleet.device == "cpu":
        return dict(vllm)
    return {"gpu_memory_utilization": spec.policy.gpu_memory_utilization, **vllm}


@dataclass(frozen=True)
class ModelRun:
    """One model's part of a run, and what goes with it from one engine to the next."""

    spec: CampaignSpec
    fleet: FleetSpec
    weights: Path
    run: str
    control: Control
    timeline: Timeline
    claim: Claim
    recovery: Recovery
    place: Place
    expected: Expected | None
