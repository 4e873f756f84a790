"""Routing as arithmetic: (checkpoint, fleet, policy) → placement with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from core.campaign import FleetSpec, ModelSpec, PolicySpec
from core.errors import CannotPlaceError, UserError
from core.model.checkpoint import Checkpoint
from core.model.kv_cache import KVCache, computed_bytes, kv_cache

GB = 10**9
# A window cut below this to save memory would change scores of ordinary benchmarks.
SMALLEST_CUT_WINDOW = 8192


@dataclass(frozen=True)
class Placement:
    """Where one model runs and why. ``reason`` is a sentence a person reads."""

    engine: str  # "lightweight" | "distributed"
    tensor_parallel: int
    pipeline_parallel: int
    replicas: int
    max_model_len: int
    dtype: str
    weight_bytes: int  # as loaded, all ranks together
    reason: str

    @property
    def stages(self) -> int:
        """Groups of ``tensor_parallel`` GPUs."""
        return self.pipeline_parallel * self.replicas

    @property
    def gpus(self) -> int:
        """GPUs held by all replicas together."""
        return self.replica_gpus * self.replicas

    @property
    def replica_gpus(self) -> int:
        """GPUs of one replica: so many does a model wait for."""
        return self.tensor_parallel * self.pipeline_parallel


@dataclass(frozen=True)
class Memory:
    """Memory of one GPU under a placement, in bytes: ``weights`` + ``kv`` + ``headroom`` against ``usable``."""

    weights: float
    kv: float
    headroom: float
    usable: float

    @property
    def total(self) -> float:
        """Bytes one GPU needs."""
        return self.weights + self.kv + self.headroom

    @property
    def fits(self) -> bool:
        """Whether the need is met."""
        return self.total <= self.usable

    def __str__(self) -> str:
        parts = f"{self.weights / GB:.1f} GB weights + {self.kv / GB:.1f} GB KV cache + {self.headroom / GB:.1f} GB headroom"
        return f"{parts} = {self.total / GB:.1f} of {self.usable / GB:.1f} GB per GPU"


@dataclass(frozen=True)
class _Load:
    """The needs of a model, before any degree is chosen. ``window`` may be cut where the spec names none."""

    weights: int
    cache: KVCache
    window: int
    may_cut: bool
    usable: float
    headroom: float
    sequences: float

    def memory(self, tensor: int, pipeline: int, window: int) -> Memory:
        kv = self.sequences * self.cache.bytes(window, tensor, pipeline)
        return Memory(self.weights / (tensor * pipeline), kv, self.headroom, self.usable)

    def largest_window(self, tensor: int, pipeline: int) -> int:
        """Tokens whose KV cache fits beside the weights, at most ``window``; 0 where the weights alone are too large."""
        left = self.usable - self.headroom - self.weights / (tensor * pipeline)
        return self.cache.tokens(left / self.sequences, self.window, tensor, pipeline) if left >= 0 else 0

    @property
    def least_window(self) -> int:
        """The whole window, or a cut that ordinary benchmarks do not notice."""
        return min(self.window, SMALLEST_CUT_WINDOW) if self.may_cut else self.window


def place(checkpoint: Checkpoint, model: ModelSpec, fleet: FleetSpec, policy: PolicySpec) -> Placement:
    """Decide engine, degrees and window of one model. Pure.

    Raises `core.errors.CannotPlaceError` with the arithmetic where nothing fits, `core.errors.UserError` for an override that
    cannot work.
    """
    _check_overrides(checkpoint, model, fleet)
    load = _load(checkpoint, model, fleet, policy)
    small = load.weights <= policy.lightweight_max_weight_gb * GB
    long = model.long_context and load.window > policy.long_context_tokens and fleet.nodes * fleet.gpus > 1
    asked = model.engine == "distributed" or (model.tensor_parallel or 1) * (model.pipeline_parallel or 1) > 1
    size = f"{load.weights / GB:.2f} GB of weights"
    limit = f"{policy.lightweight_max_weight_gb:g} GB"
    alone = load.largest_window(1, 1)

    if model.engine == "lightweight" or (small and not long and not asked and alone >= load.least_window):
        if alone < load.least_window:
            raise CannotPlaceError(f"does not fit one GPU: {_lack(load, 1, 1)}; use engine: auto or distributed")
        why = (
            "engine 'lightweight' was asked for"
            if model.engine == "lightweight"
            else f"{size} fit one GPU (limit {limit})"
        )
        return _placement("lightweight", 1, 1, checkpoint, model, load, alone, why)

    if asked:
        why = (
            "engine 'distributed' was asked for" if model.engine == "distributed" else "more than one GPU was asked for"
        )
    elif long:
        why = f"marked long-context, its window of {load.window:,} tokens exceeds {policy.long_context_tokens:,}"
    elif small:
        why = f"{size} do not fit one GPU ({_lack(load, 1, 1)})"
    else:
        why = f"{size} exceed {limit}"
    least = 2 if long and not asked else 1
    degrees = [d for d in parallel_degrees(checkpoint, model, fleet) if d[0] * d[1] >= least]
    for cut_allowed in (False, True):
        for tensor, pipeline in degrees:
            window = load.largest_window(tensor, pipeline)
            if window == load.window or (cut_allowed and window >= load.least_window):
                return _placement("distributed", tensor, pipeline, checkpoint, model, load, window, why)
    if not degrees:
        raise CannotPlaceError(
            f"{why}, and no degree of the fleet ({fleet.nodes} × {fleet.gpus} GPUs) divides its heads"
        )
    widest = max(degrees, key=lambda d: (d[0] * d[1], d[0]))
    raise CannotPlaceError(f"{why}, and does not fit the fleet either: {_lack(load, *widest)}; {_mend(load, fleet)}")


def memory_of(
    checkpoint: Checkpoint, model: ModelSpec, fleet: FleetSpec, policy: PolicySpec, placement: Placement
) -> Memory:
    """Return the memory that one GPU of ``placement`` was expected to need."""
    load = _load(checkpoint, model, fleet, policy)
    return load.memory(placement.tensor_parallel, placement.pipeline_parallel, placement.max_model_len)


def _load(checkpoint: Checkpoint, model: ModelSpec, fleet: FleetSpec, policy: PolicySpec) -> _Load:
    if model.max_model_len and model.max_model_len > checkpoint.context_window and not checkpoint.any_window:
        raise UserError(
            f"max_model_len = {model.max_model_len}: the checkpoint's window is {checkpoint.context_window:,} tokens; "
            "ask for that or less"
        )
    stored, computed = computed_bytes(checkpoint, model)
    return _Load(
        weights=round(checkpoint.weight_bytes * computed / stored),
        cache=kv_cache(checkpoint, model),
        window=model.max_model_len or checkpoint.context_window,
        may_cut=model.max_model_len is None,
        usable=fleet.gpu_memory_gb * GB * policy.gpu_memory_utilization,
        headroom=policy.activation_headroom_gb * GB,
        sequences=policy.min_kv_sequences,
    )


def tensor_degrees(checkpoint: Checkpoint, most: int) -> list[int]:
    """List tensor-parallel degrees up to ``most`` that split the heads evenly, as vLLM requires."""
    heads, kv_heads = _shared_heads(checkpoint), checkpoint.kv_heads
    return [
        degree
        for degree in range(1, most + 1)
        if heads % degree == 0 and (checkpoint.kv_replicated or kv_heads % degree == 0 or degree % kv_heads == 0)
    ]


def _shared_heads(checkpoint: Checkpoint) -> int:
    """Return what ranks divide among them: channels where nothing attends."""
    return checkpoint.attention_heads or checkpoint.hidden_size


def parallel_degrees(checkpoint: Checkpoint, model: ModelSpec, fleet: FleetSpec) -> list[tuple[int, int]]:
    """List (tensor, pipeline) degrees the fleet can hold, best first: no more stages than needed, then the fewest GPUs.

    Tensor parallel stays within a node; stages may cross nodes, and idle while they wait for each other.
    """

    def all_degrees() -> Iterator[tuple[int, int]]:
        for tensor in tensor_degrees(checkpoint, fleet.gpus):
            # vLLM cannot split a model into stages on CPUs.
            most = fleet.nodes * (fleet.gpus // tensor) if fleet.device != "cpu" else 1
            for pipeline in range(1, min(most, checkpoint.layers) + 1):
                if model.tensor_parallel in (None, tensor) and model.pipeline_parallel in (None, pipeline):
                    yield tensor, pipeline

    return sorted(all_degrees(), key=lambda d: (d[1], d[0]))


def _check_overrides(checkpoint: Checkpoint, model: ModelSpec, fleet: FleetSpec) -> None:
    tensor, pipeline = model.tensor_parallel or 1, model.pipeline_parallel or 1
    valid = tensor_degrees(checkpoint, _shared_heads(checkpoint))
    if tensor not in valid:
        raise UserError(
            f"tensor_parallel = {tensor} does not divide {checkpoint.attention_heads} attention and {checkpoint.kv_heads} "
            f"key/value heads: use one of {', '.join(map(str, valid))}"
        )
    if tensor > fleet.gpus:
        raise CannotPlaceError(f"tensor_parallel = {tensor}: a node of the fleet has {fleet.gpus} GPUs")
    stages = fleet.nodes * (fleet.gpus // tensor)
    if pipeline > stages:
        raise CannotPlaceError(
            f"tensor_parallel = {tensor} × pipeline_parallel = {pipeline}: "
            f"{fleet.nodes} × {fleet.gpus} GPUs hold {stages} such stages"
        )
    if pipeline > 1 and fleet.device == "cpu":
        raise CannotPlaceError(f"pipeline_parallel = {pipeline}: vLLM has no pipeline parallel on CPUs; leave it out")
    if pipeline > checkpoint.layers:
        raise UserError(f"pipeline_parallel = {pipeline}: the checkpoint has {checkpoint.layers} layers")


def _placement(
    engine: str,
    tensor: int,
    pipeline: int,
    checkpoint: Checkpoint,
    model: ModelSpec,
    load: _Load,
    window: int,
    why: str,
) -> Placement:
    reason = f"{why}: {engine}"
    if engine == "distributed":
        over = f" over {tensor * pipeline} GPUs" if tensor * pipeline > 1 else " on one GPU"
        stages = f", {pipeline} pipeline stages" if pipeline > 1 else ""
        reason += f"{over} (tensor parallel {tensor}{stages}), {load.memory(tensor, pipeline, window)}"
    if window < load.window:
        reason += f"; window cut from {load.window:,} to {window:,} tokens so that its KV cache fits"
    return Placement(
        engine=engine,
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        replicas=1,
        max_model_len=window,
        dtype=checkpoint.dtype if model.dtype == "auto" else model.dtype,
        weight_bytes=load.weights,
        reason=reason + ".",
    )


def _lack(load: _Load, tensor: int, pipeline: int) -> str:
    window = load.least_window
    degree = f"at tensor parallel {tensor}" + (f" × pipeline parallel {pipeline}" if pipeline > 1 else "")
    return f"{load.memory(tensor, pipeline, window)} {degree} with a window of {window:,} tokens"


def _mend(load: _Load, fleet: FleetSpec) -> str:
    need = load.weights + load.sequences * load.cache.bytes(load.least_window, 1, 1)
    each = load.usable - load.headroom
    if each <= 0:
        return (
            f"a GPU of {fleet.gpu_memory_gb:g} GB has no room beside the headroom: lower policy.activation_headroom_gb"
        )
    return f"it needs about {math.ceil(need / each)} GPUs of {fleet.gpu_memory_gb:g} GB"


@dataclass(frozen=True)
class PlannedModel:
    """One model of the campaign, its checkpoint and its placement."""

    model: ModelSpec
    checkpoint: Checkpoint
    placement: Placement


@dataclass(frozen=True)
class Plan:
    """A campaign that can run: the fleet and every model's placement, and what its scores may be worth less for."""

    fleet: FleetSpec
    models: tuple[PlannedModel, ...]
    warnings: tuple[str, ...] = ()


def loads_from_here(planned: PlannedModel, fleet: FleetSpec) -> bool:
    """Whether the model's engine reads weights from this machine's disk.

    It does not where they are streamed, nor on nodes of a Ray cluster that may be other machines and fetch them themselves.
    """
    elsewhere = planned.placement.engine == "distributed" and bool(fleet.ray_address or fleet.kuberay)
    return not (planned.model.stream_weights or elsewhere)
