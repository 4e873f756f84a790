"""Estimates of a campaign before it runs: seconds, GPU-hours and money, with intervals; and its jobs for the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.campaign import CampaignSpec, ModelSpec, PolicySpec
from core.errors import CannotPlaceError
from core.model.checkpoint import Checkpoint
from core.model.kv_cache import kv_cache
from core.model.placement import GB, Placement, Plan, place
from core.planning.cost.history import History
from core.planning.cost.model import CostModel, TimeEstimate, Tokens, Triple, learn, setup_of
from core.planning.cost.workload import Workload, expected_tokens, workload
from core.planning.schedule.fleet_file import NodeGroup, group_of, nodes_of
from core.planning.schedule.jobs import Node, Option, ScheduledJob, at_start, runnable
from core.planning.schedule.scheduler import SchedulingPolicy, choose, timetable


@dataclass(frozen=True)
class Timed:
    """A model in one placement on one kind of GPU, with its expected times."""

    kind: str
    placement: Placement
    load: TimeEstimate
    work: TimeEstimate
    memory_gb: float  # on each GPU

    @property
    def seconds(self) -> Triple:
        """Load and work together; their errors are taken to go the same way."""
        low, middle, high = (load + work for load, work in zip(self.load.triple, self.work.triple, strict=True))
        return low, middle, high

    def option(self, which: int = 1) -> Option:
        """Return the placement for the scheduler, at the low (0), median (1) or high (2) end."""
        return Option(
            kind=self.kind,
            work_seconds=self.work.triple[which],
            load_seconds=self.load.triple[which],
            tensor_parallel=self.placement.tensor_parallel,
            stages=self.placement.stages,
            memory_gb=self.memory_gb,
        )


@dataclass(frozen=True)
class ModelEstimate:
    """A model, what its benchmarks will ask, and its placements, one per kind of GPU that can hold it."""

    name: str
    campaign: str
    workloads: tuple[Workload, ...]
    timed: tuple[Timed, ...]
    leads: bool = False

    def job(self, which: int = 1) -> ScheduledJob:
        """Return the model for the scheduler."""
        options = tuple(each.option(which) for each in self.timed)
        return ScheduledJob(f"{self.campaign}/{self.name}", options, self.campaign, leads=self.leads)


@dataclass(frozen=True)
class CampaignEstimate:
    """The whole campaign on its fleet: seconds from first start to last end, GPU-hours, and cost where a price is known."""

    models: tuple[ModelEstimate, ...]
    makespan: Triple
    gpu_hours: Triple
    cost: Triple | None


class Estimator:
    """Estimates models by one history; what it learnt is learnt once."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.model: CostModel = learn(history.jobs)

    def estimate(
        self,
        spec: CampaignSpec,
        model: ModelSpec,
        checkpoint: Checkpoint,
        placements: Sequence[tuple[NodeGroup, Placement]],
    ) -> ModelEstimate:
        """Return the estimate of ``model`` in each placement. Raises `core.errors.UserError` where a benchmark is not known."""
        cells, reasons = self.history.cells, model.think_end_token is not None
        loads = tuple(workload(each, checkpoint.identity, cells, reasons=reasons) for each in spec.benchmarks)
        tokens, spread = expected_tokens(loads)
        timed = tuple(
            self.timed(checkpoint, placement, group, spec.policy, tokens, spread, model.name)
            for group, placement in placements
        )
        return ModelEstimate(model.name, spec.name, loads, timed, leads=model.name in spec.compared_with)

    def timed(
        self,
        checkpoint: Checkpoint,
        placement: Placement,
        group: NodeGroup,
        policy: PolicySpec,
        tokens: Tokens,
        spread: float = 0.0,
        name: str = "",
    ) -> Timed:
        """Return the times of one placement for ``tokens``, uncertain by ``spread`` in log space, of a model called ``name``."""
        setup = setup_of(
            checkpoint.identity,
            group.kind,
            placement.weight_bytes,
            placement.dtype,
            tensor_parallel=placement.tensor_parallel,
            stages=placement.stages,
            name=name,
        )
        return Timed(
            kind=group.kind,
            placement=placement,
            load=self.model.load_seconds(setup),
            work=self.model.work_seconds(setup, tokens, spread),
            memory_gb=_memory(checkpoint, placement, group, policy),
        )


def placed_everywhere(
    checkpoint: Checkpoint, model: ModelSpec, groups: Sequence[NodeGroup], policy: PolicySpec
) -> list[tuple[NodeGroup, Placement]]:
    """Place a model on each kind of GPU that can hold it. Raises `core.errors.CannotPlaceError` where none can."""
    found: list[tuple[NodeGroup, Placement]] = []
    reasons: list[str] = []
    nodes = nodes_of(groups)
    for group in _kinds(groups):
        try:
            placement = place(checkpoint, model, group.devices(), policy)
        except CannotPlaceError as error:
            reasons.append(f"{group.kind}: {error}")
            continue
        option = Option(group.kind, 0.0, 0.0, placement.tensor_parallel, placement.stages)
        if runnable(ScheduledJob(model.name, (option,)), nodes):
            found.append((group, placement))
        else:
            reasons.append(f"{group.kind}: {placement.gpus} GPUs cannot work together there")
    if not found:
        raise CannotPlaceError(f"model {model.name!r} fits nowhere in the fleet: " + "; ".join(reasons))
    return found


def plan_estimate(spec: CampaignSpec, plan: Plan, history: History) -> CampaignEstimate:
    """Estimate a planned campaign by what ``history`` teaches."""
    group, estimator = group_of(plan.fleet), Estimator(history)
    models = [estimator.estimate(spec, each.model, each.checkpoint, [(group, each.placement)]) for each in plan.models]
    return campaign_estimate(models, [group], SchedulingPolicy())


def campaign_estimate(
    models: Sequence[ModelEstimate], groups: Sequence[NodeGroup], policy: SchedulingPolicy
) -> CampaignEstimate:
    """Add models up: the makespan is the scheduler's own timetable, with every model at its low, median and high end."""
    nodes = nodes_of(groups)
    makespan = tuple(_makespan(nodes, [each.job(which) for each in models], policy) for which in range(3))
    prices, chosen = {group.kind: group.devices().price_per_gpu_hour for group in groups}, list(map(_first, models))
    hours = [tuple(each.placement.gpus * seconds / 3600 for seconds in each.seconds) for each in chosen]
    rates = [price for each in chosen if (price := prices[each.kind]) is not None]
    cost = None
    if len(rates) == len(models):
        cost = _sums([tuple(rate * value for value in each) for rate, each in zip(rates, hours, strict=True)])
    low, middle, high = makespan
    return CampaignEstimate(tuple(models), (low, middle, high), _sums(hours), cost)


def _makespan(nodes: Sequence[Node], jobs: Sequence[ScheduledJob], policy: SchedulingPolicy) -> float:
    state = at_start(nodes, jobs)
    return timetable(state, choose(state, policy)).ends


def _sums(rows: Sequence[tuple[float, ...]]) -> Triple:
    low, middle, high = (sum(row[index] for row in rows) for index in range(3))
    return low, middle, high


def _first(model: ModelEstimate) -> Timed:
    """Return the placement of the fewest GPU-seconds."""
    return min(model.timed, key=lambda each: each.placement.gpus * each.seconds[1])


def _kinds(groups: Sequence[NodeGroup]) -> list[NodeGroup]:
    """Return one group per kind, with all its machines."""
    merged: dict[str, NodeGroup] = {}
    for group in groups:
        other = merged.get(group.kind)
        if other is not None:
            group = group.model_copy(update={"nodes": group.nodes + other.nodes, "gpus": max(group.gpus, other.gpus)})
        merged[group.kind] = group
    return list(merged.values())


def _memory(checkpoint: Checkpoint, placement: Placement, group: NodeGroup, policy: PolicySpec) -> float:
    """Return GB on each GPU: weights, the KV cache that placement asks for, and headroom."""
    cache = kv_cache(checkpoint, ModelSpec(model=checkpoint.source))
    kv = cache.bytes(placement.max_model_len, placement.tensor_parallel, placement.pipeline_parallel)
    held = placement.weight_bytes / placement.gpus + kv * policy.min_kv_sequences
    need = held / GB + policy.activation_headroom_gb
    return min(need, group.devices().gpu_memory_gb)
