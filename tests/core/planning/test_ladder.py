"""What is done about a failing engine, step by step, until there is nothing more to do."""

from pathlib import Path
from typing import Any

import pytest

from core.campaign import FleetSpec, ModelSpec, PolicySpec
from core.model.checkpoint import read_checkpoint
from core.model.placement import PlannedModel, place
from core.planning.ladder import BARREN, BATCHES, EngineFault, Step, kind_of, next_step
from tests.checkpoints import write_checkpoint

FLEET = FleetSpec(gpus=4, gpu_memory_gb=8, device="cuda")
POLICY = PolicySpec()
DIED = "m: the engine process was killed by SIGKILL"
MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB"


def planned(tmp_path: Path, fleet: FleetSpec = FLEET, **fields: Any) -> PlannedModel:
    model = ModelSpec(model=str(write_checkpoint(tmp_path / "m", num_key_value_heads=4)), **fields)
    checkpoint = read_checkpoint(model.model)
    return PlannedModel(model, checkpoint, place(checkpoint, model, fleet, POLICY))


def fault(message: str, *, loading: bool = False, **more: int) -> EngineFault:
    return EngineFault(kind_of(message, loading=loading), message, loading, **more)  # type: ignore[arg-type]


def climbed(
    again: EngineFault, start: PlannedModel, fleet: FleetSpec = FLEET, policy: PolicySpec = POLICY
) -> list[Step]:
    """All steps where the same fault comes back each time."""
    steps: list[Step] = []
    while not steps or steps[-1].action != "give up":
        steps.append(next_step(again, steps, start, fleet, policy))
        start = steps[-1].moved or start
        assert len(steps) < 50
    return steps


@pytest.mark.parametrize(
    ("message", "loading", "kind"),
    [
        (MEMORY, False, "memory"),
        ("RuntimeError: CUDA error: out of memory", True, "memory"),
        ("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", True, "memory"),
        ("(3.0 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB)", True, "memory"),
        ("Free memory on device cuda:0 (1.0/80.0 GiB) on startup is less than desired", True, "memory"),
        ("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory", True, "memory"),
        ("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory", False, "memory"),
        ("Worker exit type: NODE_OUT_OF_MEMORY", False, "memory"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", False, "memory"),
        ("m: the engine process was killed by SIGBUS", False, "memory"),
        ("m: the engine process was killed by SIGKILL (the kernel was out of memory)", False, "memory"),
        (DIED, False, "death"),
        (DIED, True, "death"),
        ("vLLM's engine core ended", False, "death"),
        ("vLLM did not start: Failed core proc(s): {'EngineCore_DP0': -9}", True, "death"),
        ("vLLM did not start: Failed core proc(s): {'EngineCore_DP0': 1}", True, "refusal"),
        ("vLLM did not start: No module named 'no_such'", True, "refusal"),
        ("vLLM died of its first request: Unsupported CPU attention configuration", True, "refusal"),
        ("the model service ended: the actor died unexpectedly before finishing this task", False, "death"),
    ],
)
def test_what_an_engine_died_of_is_read_from_its_last_words(message: str, loading: bool, kind: str) -> None:
    assert kind_of(message, loading=loading) == kind


def test_out_of_memory_climbs_from_smaller_batches_over_more_gpus_to_the_arithmetic(tmp_path: Path) -> None:
    steps = climbed(fault(MEMORY, loading=True), planned(tmp_path))
    rungs = ["smaller batch"] * len(BATCHES)
    assert [step.action for step in steps] == [*rungs, "move", *rungs, "move", *rungs, "give up"]
    assert [dict(step.options) for step in steps[:2]] == [
        {"max_num_seqs": sequences, "max_num_batched_tokens": tokens} for sequences, tokens in BATCHES
    ]
    moves = [step.moved.placement for step in steps if step.moved]
    assert [(each.engine, each.tensor_parallel) for each in moves] == [("distributed", 2), ("distributed", 4)]
    assert moves[0].reason.startswith("moved from lightweight, tensor parallel 1: ")
    assert {each.max_model_len for each in moves} == {2048}
    assert "GB weights + " in steps[-1].reason
    assert "the fleet has no wider placement" in steps[-1].reason


def test_who_says_how_a_model_runs_is_obeyed(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = [{"engine": "lightweight"}, {"tensor_parallel": 2}]
    for number, fields in enumerate(asked):
        steps = climbed(fault(MEMORY), planned(tmp_path / str(number), **fields))
        assert [step.action for step in steps] == ["smaller batch", "smaller batch", "give up"]
        assert "the spec says how it runs" in steps[-1].reason


def test_batches_are_never_made_larger_than_a_person_asked(tmp_path: Path) -> None:
    asked = {"max_num_seqs": 16, "max_num_batched_tokens": 1024}
    steps = climbed(fault(MEMORY), planned(tmp_path, engine="lightweight", vllm=asked))
    assert [dict(step.options) for step in steps[:-1]] == [{"max_num_seqs": 8, "max_num_batched_tokens": 512}]


def test_where_prompts_are_read_whole_only_fewer_go_together(tmp_path: Path) -> None:
    steps = climbed(fault(MEMORY), planned(tmp_path, engine="lightweight", vllm={"enable_chunked_prefill": False}))
    assert [dict(step.options) for step in steps[:-1]] == [{"max_num_seqs": 64}, {"max_num_seqs": 8}]


def test_a_death_is_repeated_as_often_as_the_policy_says_and_keeps_smaller_batches(tmp_path: Path) -> None:
    start = planned(tmp_path)
    assert [step.action for step in climbed(fault(DIED), start)] == ["restart"] * 3 + ["give up"]
    assert [step.action for step in climbed(fault(DIED), start, policy=PolicySpec(engine_restarts=0))] == ["give up"]
    smaller = next_step(fault(MEMORY), [], start, FLEET, POLICY)
    assert next_step(fault(DIED), [smaller], start, FLEET, POLICY).options == smaller.options


def test_what_vllm_refuses_is_not_tried_again(tmp_path: Path) -> None:
    refused = fault("vLLM did not start: no such architecture", loading=True)
    assert next_step(refused, [], planned(tmp_path), FLEET, POLICY) == Step("give up", "")


def test_suspects_are_asked_apart_however_often_within_bounds(tmp_path: Path) -> None:
    start = planned(tmp_path)
    restarts = [Step("restart", "")] * 3
    assert next_step(fault(DIED, suspects=5), restarts, start, FLEET, POLICY).action == "isolate"
    assert next_step(fault(DIED, suspects=5, barren=BARREN), restarts, start, FLEET, POLICY).action == "give up"
    found = EngineFault("death", DIED, False, found="doc 7", guilty=8)
    assert "'doc 7'" in next_step(found, restarts, start, FLEET, POLICY).reason
    many = EngineFault("death", DIED, False, found="doc 8", guilty=9)
    assert "policy.poison_requests = 8" in next_step(many, restarts, start, FLEET, POLICY).reason


def test_a_request_that_exhausts_memory_is_asked_apart_where_nothing_else_helps(tmp_path: Path) -> None:
    start = planned(tmp_path, engine="lightweight")
    tried = [step for step in climbed(fault(MEMORY), start) if step.action != "give up"]
    assert next_step(fault(MEMORY, suspects=5), tried, start, FLEET, POLICY).action == "isolate"
    assert next_step(fault(MEMORY, loading=True), tried, start, FLEET, POLICY).action == "give up"
