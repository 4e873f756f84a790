import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.campaign import FleetSpec, ModelSpec, PolicySpec
from core.errors import CannotPlaceError, UserError
from core.model.placement import GB, Placement, place, tensor_degrees
from tests.core.real_configs import REAL, real

SMALL_GPU = FleetSpec(gpus=1, gpu_memory_gb=24, device="cuda")
ONE = FleetSpec(gpus=1, gpu_memory_gb=80, device="cuda")
NODE = FleetSpec(gpus=8, gpu_memory_gb=80, device="cuda")
TWO_NODES = FleetSpec(nodes=2, gpus=8, gpu_memory_gb=80, device="cuda")
FOUR_NODES = FleetSpec(nodes=4, gpus=8, gpu_memory_gb=80, device="cuda")
POLICY = PolicySpec()


def routed(name: str, fleet: FleetSpec, **model: Any) -> Placement:
    return place(real(name), ModelSpec(model=name, **model), fleet, POLICY)


@pytest.mark.parametrize(
    ("name", "fleet", "engine", "tensor", "pipeline"),
    [
        ("Qwen3-0.6B", SMALL_GPU, "lightweight", 1, 1),
        ("Llama-3.1-8B", SMALL_GPU, "lightweight", 1, 1),
        ("Llama-3.1-8B", ONE, "lightweight", 1, 1),
        ("long-7B", NODE, "lightweight", 1, 1),
        ("Qwen2.5-VL-7B", SMALL_GPU, "lightweight", 1, 1),
        ("llava-1.5-7b", SMALL_GPU, "lightweight", 1, 1),
        ("Qwen3-32B", NODE, "distributed", 2, 1),  # 65.5 GB of weights fit 72, but not beside 10.7 GB of KV cache
        ("Llama-3.1-70B", NODE, "distributed", 4, 1),
        ("Llama-70B-AWQ", NODE, "distributed", 1, 1),
        ("Mixtral-8x22B", NODE, "distributed", 8, 1),
        ("DeepSeek-V3", TWO_NODES, "distributed", 8, 2),
        ("Llama-3.1-405B", TWO_NODES, "distributed", 8, 2),
        ("Llama-3.1-405B", FOUR_NODES, "distributed", 8, 2),
    ],
)
def test_real_models_go_where_the_arithmetic_says(
    name: str, fleet: FleetSpec, engine: str, tensor: int, pipeline: int
) -> None:
    found = routed(name, fleet)
    assert (found.engine, found.tensor_parallel, found.pipeline_parallel) == (engine, tensor, pipeline)
    assert found.gpus == tensor * pipeline


def test_a_long_context_model_runs_distributed_where_the_fleet_has_more_than_one_gpu() -> None:
    found = routed("long-7B", NODE, long_context=True)
    assert (found.engine, found.tensor_parallel, found.max_model_len) == ("distributed", 2, 131_072)
    assert "marked long-context" in found.reason


@pytest.mark.parametrize(
    ("fleet", "model"),
    [
        (ONE, {"long_context": True}),  # one GPU in all
        (NODE, {"long_context": False}),  # not marked
        (NODE, {"long_context": True, "max_model_len": 64_000}),  # the window that is used counts
    ],
)
def test_it_runs_lightweight_otherwise(fleet: FleetSpec, model: dict[str, Any]) -> None:
    assert routed("long-7B", fleet, **model).engine == "lightweight"


def test_a_window_that_nobody_asked_for_is_cut_to_what_fits_and_said() -> None:
    found = routed("Llama-3.1-8B", SMALL_GPU)
    assert 8192 <= found.max_model_len < 131_072
    assert f"window cut from 131,072 to {found.max_model_len:,} tokens" in found.reason


def test_a_window_that_was_asked_for_is_never_cut() -> None:
    with pytest.raises(CannotPlaceError, match="GB KV cache"):
        routed("Llama-3.1-8B", SMALL_GPU, max_model_len=131_072)


def test_a_small_model_that_does_not_fit_one_gpu_is_spread() -> None:
    found = routed("Llama-3.1-8B", FleetSpec(gpus=4, gpu_memory_gb=16, device="cuda"))
    assert (found.engine, found.tensor_parallel) == ("distributed", 4)
    assert found.max_model_len == 131_072  # the whole window on 4 comes before a cut one on 2
    assert "do not fit one GPU" in found.reason


@pytest.mark.parametrize("name", ["Llama-3.1-70B", "Llama-3.1-405B", "DeepSeek-V3", "Mixtral-8x22B"])
def test_what_fits_nowhere_is_refused_with_the_arithmetic(name: str) -> None:
    with pytest.raises(CannotPlaceError) as caught:
        routed(name, ONE)
    message = str(caught.value)
    assert re.search(
        r"[\d.]+ GB weights \+ [\d.]+ GB KV cache \+ 2\.0 GB headroom = [\d.]+ of 72\.0 GB per GPU", message
    )
    assert re.search(r"it needs about \d+ GPUs of 80 GB", message)


def test_float32_doubles_weights_and_kv_cache() -> None:
    half, full = routed("Qwen3-0.6B", ONE), routed("Qwen3-0.6B", ONE, dtype="float32")
    assert full.weight_bytes == 2 * half.weight_bytes
    assert full.dtype == "float32"


def test_a_dtype_does_not_unpack_quantised_weights() -> None:
    assert routed("Llama-70B-AWQ", NODE, dtype="bfloat16").weight_bytes == REAL["Llama-70B-AWQ"].weight_bytes


def test_overrides_are_honoured() -> None:
    found = routed("Llama-3.1-8B", NODE, engine="distributed", tensor_parallel=4)
    assert (found.engine, found.tensor_parallel) == ("distributed", 4)
    assert routed("Llama-3.1-8B", TWO_NODES, tensor_parallel=4, pipeline_parallel=2).gpus == 8
    assert routed("Qwen3-32B", NODE, engine="lightweight").engine == "lightweight"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            {"tensor_parallel": 3},
            "tensor_parallel = 3 does not divide 32 attention and 8 key/value heads: use one of 1, 2, 4, 8",
        ),
        ({"tensor_parallel": 16}, "a node of the fleet has 8 GPUs"),
        ({"tensor_parallel": 8, "pipeline_parallel": 2}, "hold 1 such stages"),
        ({"max_model_len": 200_000}, "the checkpoint's window is 131,072"),
    ],
)
def test_overrides_that_cannot_work_are_refused(model: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        routed("Llama-3.1-8B", NODE, **model)


def test_a_checkpoint_that_names_no_window_may_be_asked_for_any() -> None:
    assert routed("falcon-mamba", ONE).max_model_len == 2048
    assert routed("falcon-mamba", ONE, max_model_len=100_000).max_model_len == 100_000


def test_a_window_that_vllm_would_refuse_is_refused_with_the_largest() -> None:
    with pytest.raises(UserError, match="max_model_len = 131072: the checkpoint's window is 32,768 tokens"):
        routed("qwen2.5-yarn", ONE, max_model_len=131_072)


def test_key_value_heads_by_their_true_number_decide_what_fits() -> None:
    assert routed("glm4-9b", ONE).max_model_len == 131_072
    assert tensor_degrees(real("dbrx"), 8) == [1, 2, 4, 8]  # not 6, which divides its 48 heads


def test_a_model_without_heads_is_split_by_its_channels() -> None:
    assert routed("falcon-mamba", NODE, tensor_parallel=4).tensor_parallel == 4
    with pytest.raises(UserError, match="tensor_parallel = 3"):
        routed("falcon-mamba", NODE, tensor_parallel=3)


def test_layers_that_slide_cost_less_than_their_window() -> None:
    whole = routed("gemma3-12b", ONE, engine="distributed", vllm={"disable_hybrid_kv_cache_manager": True})
    slid = routed("gemma3-12b", ONE, engine="distributed")
    assert "51.5 GB KV cache" in whole.reason
    assert "11.3 GB KV cache" in slid.reason


def test_cpus_have_no_pipeline_parallel() -> None:
    cpu = FleetSpec(gpus=4, gpu_memory_gb=8, device="cpu")
    with pytest.raises(CannotPlaceError, match="no pipeline parallel on CPUs"):
        routed("Llama-3.1-8B", cpu, pipeline_parallel=2)


@given(
    name=st.sampled_from(sorted(REAL)),
    nodes=st.integers(1, 8),
    gpus=st.integers(1, 16),
    memory=st.sampled_from([16, 24, 40, 80, 141, 192]),
    long=st.booleans(),
)
def test_a_placement_never_exceeds_its_fleet(name: str, nodes: int, gpus: int, memory: int, long: bool) -> None:
    fleet = FleetSpec(nodes=nodes, gpus=gpus, gpu_memory_gb=memory, device="cuda")
    checkpoint = real(name)
    try:
        found = place(checkpoint, ModelSpec(model=name, long_context=long), fleet, POLICY)
    except CannotPlaceError:
        return
    assert found.tensor_parallel <= gpus
    assert found.gpus <= nodes * gpus
    assert checkpoint.attention_heads % found.tensor_parallel == 0
    shares = 1 if checkpoint.kv_replicated else min(found.tensor_parallel, checkpoint.kv_heads or 1)
    kv = found.max_model_len * checkpoint.kv_bytes_per_token / (shares * found.pipeline_parallel)
    assert found.weight_bytes / found.gpus + kv + 2 * GB <= 0.9 * memory * GB
    assert found.max_model_len >= min(8192, checkpoint.context_window)
