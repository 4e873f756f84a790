"""The next step for an engine that failed, by its kind of failure and the steps tried before. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from core.campaign import FleetSpec, PolicySpec
from core.errors import CannotPlaceError, UserError
from core.model.placement import Placement, PlannedModel, memory_of, parallel_degrees, place

Kind = Literal["memory", "death", "stall", "refusal"]
Action = Literal["restart", "isolate", "smaller batch", "move", "give up"]

MEMORY = re.compile(
    r"out of memory|OutOfMemory|OUT_OF_MEMORY|out-of-memory|No available memory for the cache blocks|"
    r"larger than the available KV cache memory|Free memory on device|can't allocate memory|Cannot allocate memory|"
    r"bad_alloc|\bMemoryError\b|ALLOC_FAILED|killed by SIGBUS"  # a full /dev/shm
)
REFUSED = re.compile(r"vLLM did not start|vLLM died of its first request")
KILLED = re.compile(r"was killed by SIG|Failed core proc\(s\): \{[^}]*: -\d+")
# max_num_seqs and max_num_batched_tokens, one after the other: vLLM's own are 256 or more, and 2,048 or more.
BATCHES = ((64, 2048), (8, 512))
BARREN = 20  # deaths without one answer in between: two poison requests may cost so many, each the first of all halves
QUOTED = 300  # characters


@dataclass(frozen=True)
class EngineFault:
    """A failure of an engine. ``suspects`` counts requests that may be the cause; ``found`` is the id of one that is.

    ``guilty`` counts those found so far, ``barren`` the deaths up to this one without any answer in between.
    """

    kind: Kind
    message: str
    loading: bool
    suspects: int = 0
    found: str = ""
    guilty: int = 0
    barren: int = 0


@dataclass(frozen=True)
class Step:
    """An action on a fault, and a ``reason`` that a person reads.

    ``options`` are vLLM's arguments from now on; to "move" comes with what the model is to run as.
    """

    action: Action
    reason: str
    options: Mapping[str, int] = field(default_factory=dict)
    moved: PlannedModel | None = None


def kind_of(message: str, *, loading: bool) -> Kind:
    """Return the kind of an engine's failure, by vLLM's and the system's words for it."""
    if MEMORY.search(message):
        return "memory"
    if loading and REFUSED.search(message) and not KILLED.search(message):
        return "refusal"
    return "death"


def next_step(
    fault: EngineFault, tried: Sequence[Step], planned: PlannedModel, fleet: FleetSpec, policy: PolicySpec
) -> Step:
    """Return what to do next. ``tried`` are all steps so far, in order; ``planned`` is what the model runs as now."""
    if fault.kind == "refusal":
        return Step("give up", "")  # vLLM has said it
    if fault.guilty > policy.poison_requests:
        return Step("give up", f"more requests end it than policy.poison_requests = {policy.poison_requests} allows")
    if fault.kind == "memory":
        return _with_less_memory(fault, tried, planned, fleet, policy)
    options = tried[-1].options if tried else {}
    if fault.suspects or fault.found:
        return _isolate(fault, options)
    restarts = sum(step.action == "restart" for step in tried)
    if restarts < policy.engine_restarts:
        return Step("restart", f"started again, {restarts + 1} of {policy.engine_restarts} times", options)
    return Step("give up", f"it was started again {restarts} times (policy.engine_restarts)" if restarts else "")


def _isolate(fault: EngineFault, options: Mapping[str, int]) -> Step:
    if fault.barren >= BARREN:
        return Step("give up", f"it ended {fault.barren} times without one answer")
    if fault.found:
        return Step("isolate", f"request {fault.found!r} ends it each time, and is left out", options)
    return Step("isolate", f"one of {fault.suspects:,} requests may end it each time: they are asked apart", options)


def _with_less_memory(
    fault: EngineFault, tried: Sequence[Step], planned: PlannedModel, fleet: FleetSpec, policy: PolicySpec
) -> Step:
    moves = [number for number, step in enumerate(tried) if step.action == "move"]
    here = tried[moves[-1] + 1 :] if moves else tried
    options = here[-1].options if here else {}
    smaller = next(_smaller(planned, {**planned.model.vllm, **options}), None)
    if smaller is not None:
        said = ", ".join(f"{name} {value:,}" for name, value in smaller.items())
        return Step("smaller batch", f"out of memory: {said}", {**options, **smaller})
    for moved in wider(planned, fleet, policy):
        return Step("move", f"out of memory at {_as(planned.placement)}: {moved.placement.reason}", moved=moved)
    if (fault.suspects or fault.found) and fault.barren < BARREN:
        return _isolate(fault, options)
    why = "the fleet has no wider placement"
    if _is_pinned(planned):
        why = "the spec says how it runs: leave engine, tensor_parallel and pipeline_parallel out to have it moved"
    memory = memory_of(planned.checkpoint, planned.model, fleet, policy, planned.placement)
    return Step(
        "give up",
        f"out of memory at {_as(planned.placement)} with max_num_seqs {options.get('max_num_seqs', 'as vLLM has it')}, where "
        f"{memory} were expected, and {why}",
    )


def _smaller(planned: PlannedModel, now: Mapping[str, Any]) -> Iterator[dict[str, int]]:
    """Yield smaller batches than vLLM has ``now`` by its arguments, the largest first."""
    whole_prompts = now.get("enable_chunked_prefill") is False  # a batch then has to hold the longest one
    for sequences, tokens in BATCHES:
        asked = {"max_num_seqs": sequences}
        if not whole_prompts:
            # An image's tokens have to fit.
            asked["max_num_batched_tokens"] = max(tokens, 2048) if planned.checkpoint.multimodal else tokens
        less = {name: value for name, value in asked.items() if not isinstance(now.get(name), int) or value < now[name]}
        if less:
            yield less


def wider(planned: PlannedModel, fleet: FleetSpec, policy: PolicySpec) -> Iterator[PlannedModel]:
    """Yield placements of more GPUs than now, the fewest first; none where the spec says how the model runs."""
    model, placement = planned.model, planned.placement
    if _is_pinned(planned):
        return
    # The window stays: it is part of what is computed.
    asked = model.model_copy(
        update={"engine": "distributed", "max_model_len": placement.max_model_len, "replicas": None}
    )
    for tensor, pipeline in sorted(
        parallel_degrees(planned.checkpoint, asked, fleet), key=lambda d: (d[0] * d[1], d[1])
    ):
        if tensor * pipeline <= placement.replica_gpus:
            continue
        changed = asked.model_copy(update={"tensor_parallel": tensor, "pipeline_parallel": pipeline})
        try:
            found = place(planned.checkpoint, changed, fleet, policy)
        except (CannotPlaceError, UserError):
            continue
        if found.gpus > fleet.gpus and fleet.device != "cpu" and not (fleet.ray_address or fleet.kuberay):
            continue  # this machine has no more
        yield replace(planned, placement=replace(found, reason=f"moved from {_as(placement)}: {found.reason}"))


def _is_pinned(planned: PlannedModel) -> bool:
    model = planned.model
    return model.engine == "lightweight" or bool(model.tensor_parallel or model.pipeline_parallel)


def _as(placement: Placement) -> str:
    stages = f" × pipeline parallel {placement.pipeline_parallel}" if placement.pipeline_parallel > 1 else ""
    return f"{placement.engine}, tensor parallel {placement.tensor_parallel}{stages}"
