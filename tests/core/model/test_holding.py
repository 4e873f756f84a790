"""What vLLM holds of a checkpoint, and how many parameters that is: layouts as the writers of real checkpoints store them."""

from __future__ import annotations

from typing import Any

import pytest

from core.model.headers import ELEMENT_BYTES, Tensor
from core.model.holding import held, parameters_in, stored_dtype, without_copy

W = "model.layers.0.mlp.up_proj"
# Of one matrix of 256 outputs and 512 inputs: the config's note, and the tensors that hold it.
ROWS, COLUMNS = 256, 512
QUANTIZED: dict[str, tuple[dict[str, Any], dict[str, tuple[str, int]]]] = {
    "blocks of FP8": (
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        {f"{W}.weight": ("F8_E4M3", ROWS * COLUMNS), f"{W}.weight_scale_inv": ("F32", 8)},
    ),
    "FP8, a scale each": (
        {"quant_method": "fp8"},
        {
            f"{W}.weight": ("F8_E4M3", ROWS * COLUMNS),
            f"{W}.weight_scale": ("F32", 1),
            f"{W}.input_scale": ("F32", 1),
            "model.layers.0.self_attn.k_scale": ("F32", 1),
        },
    ),
    "MXFP4": (
        {"quant_method": "mxfp4"},
        {
            "model.layers.0.mlp.experts.up_proj_blocks": ("U8", ROWS * COLUMNS // 2),
            "model.layers.0.mlp.experts.up_proj_scales": ("U8", ROWS * COLUMNS // 32),
        },
    ),
    "NVFP4 of ModelOpt": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
        {
            f"{W}.weight": ("U8", ROWS * COLUMNS // 2),
            f"{W}.weight_scale": ("F8_E4M3", ROWS * COLUMNS // 16),
            f"{W}.weight_scale_2": ("F32", 1),
            f"{W}.input_scale": ("F32", 1),
        },
    ),
    "NVFP4 of compressed-tensors": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "float"}}},
        },
        {
            f"{W}.weight_packed": ("U8", ROWS * COLUMNS // 2),
            f"{W}.weight_scale": ("F8_E4M3", ROWS * COLUMNS // 16),
            f"{W}.weight_global_scale": ("F32", 1),
            f"{W}.input_global_scale": ("F32", 1),
        },
    ),
    "INT4 of compressed-tensors": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
        },
        {
            f"{W}.weight_packed": ("I32", ROWS * COLUMNS // 8),
            f"{W}.weight_scale": ("BF16", ROWS * COLUMNS // 128),
            f"{W}.weight_zero_point": ("I32", ROWS * COLUMNS // 1024),
            f"{W}.weight_shape": ("I64", 2),
        },
    ),
    "INT8 of compressed-tensors": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int"}}},
        },
        {f"{W}.weight": ("I8", ROWS * COLUMNS), f"{W}.weight_scale": ("BF16", ROWS)},
    ),
    "AWQ": (
        {"quant_method": "awq", "bits": 4, "group_size": 128},
        {
            f"{W}.qweight": ("I32", ROWS * COLUMNS // 8),
            f"{W}.qzeros": ("I32", ROWS * COLUMNS // 1024),
            f"{W}.scales": ("F16", ROWS * COLUMNS // 128),
        },
    ),
    "GPTQ, 3 bits": (
        {"quant_method": "gptq", "bits": 3},
        {
            f"{W}.qweight": ("I32", ROWS * COLUMNS * 3 // 32),
            f"{W}.qzeros": ("I32", ROWS * COLUMNS // 128 * 3 // 32),
            f"{W}.scales": ("F16", ROWS * COLUMNS // 128),
            f"{W}.g_idx": ("I32", COLUMNS),
        },
    ),
    "bitsandbytes, 4 bits": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {
            f"{W}.weight": ("U8", ROWS * COLUMNS // 2),
            f"{W}.weight.absmax": ("U8", ROWS * COLUMNS // 64),
            f"{W}.weight.quant_map": ("F32", 16),
            f"{W}.weight.nested_absmax": ("F32", 8),
            f"{W}.weight.quant_state.bitsandbytes__nf4": ("U8", 82),
        },
    ),
}
NORM = {"model.norm.weight": ("BF16", 512)}


def tensors(kinds: dict[str, tuple[str, int]]) -> dict[str, Tensor]:
    return {name: Tensor(kind, count, 0, count * ELEMENT_BYTES.get(kind, 1)) for name, (kind, count) in kinds.items()}


@pytest.mark.parametrize("name", QUANTIZED)
def test_packed_parameters_are_counted_each_and_their_factors_not(name: str) -> None:
    quantization, kinds = QUANTIZED[name]
    stored = tensors({**kinds, **NORM})
    assert parameters_in(stored.items(), {"quantization_config": quantization}) == ROWS * COLUMNS + 512
    nested = {"text_config": {"quantization_config": quantization}}
    assert parameters_in(stored.items(), nested) == ROWS * COLUMNS + 512


def test_mistral_s_own_quantization_is_read_from_its_params() -> None:
    config = {"dim": 64, "quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}}
    kinds = {"layers.0.attention.wq.weight": ("F8_E4M3", 64), "layers.0.attention.wq.qscale_weight": ("F32", 1)}
    assert parameters_in(tensors(kinds).items(), config) == 64


def test_a_packing_that_is_not_known_hides_its_parameters() -> None:
    stored = tensors({f"{W}.codes": ("I16", 64)})
    assert parameters_in(stored.items(), {"quantization_config": {"quant_method": "aqlm"}}) is None
    words = tensors({f"{W}.qweight": ("I32", 64)})
    assert parameters_in(words.items(), {"quantization_config": {"quant_method": "gptq"}}) is None


def test_the_type_is_that_of_most_weights_not_of_their_scales() -> None:
    quantization, kinds = QUANTIZED["NVFP4 of ModelOpt"]
    assert stored_dtype(tensors({**kinds, **NORM}).items(), {"quantization_config": quantization}) == "bfloat16"
    quantization, kinds = QUANTIZED["blocks of FP8"]
    assert stored_dtype(tensors({**kinds, **NORM}).items(), {"quantization_config": quantization}) == "float8_e4m3fn"
    assert stored_dtype(tensors({f"{W}.qweight": ("I32", 1)}).items(), {}) is None


@pytest.mark.parametrize(
    ("name", "arguments", "kept"),
    [
        ("model.layers.60.mlp.up_proj.weight", {}, True),
        ("model.layers.61.eh_proj.weight", {}, False),
        ("model.layers.61.eh_proj.weight", {"speculative_config": {"method": "mtp"}}, True),
        ("mtp.layers.0.mlp.up_proj.weight", {}, False),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", {}, False),
        ("vision_tower.layers.70.weight", {}, True),
    ],
)
def test_layers_that_foretell_further_tokens_are_held_where_they_are_used(
    name: str, arguments: dict[str, Any], kept: bool
) -> None:
    assert held(name, {"num_hidden_layers": 61, "num_nextn_predict_layers": 1}, arguments) is kept


@pytest.mark.parametrize(
    ("config", "same", "kept"),
    [
        ({"tie_word_embeddings": True}, True, 1),
        ({"text_config": {"tie_word_embeddings": True}}, True, 1),
        ({"tie_word_embeddings": True}, False, 2),
        ({"tie_word_embeddings": False}, True, 2),
    ],
)
def test_a_head_that_is_a_copy_of_the_embedding_is_held_once(config: dict[str, Any], same: bool, kept: int) -> None:
    stored = tensors({"model.embed_tokens.weight": ("BF16", 64), "lm_head.weight": ("BF16", 64)})
    found = without_copy(stored, str, lambda one, other: same, config)
    assert len(found) == kept
    assert "model.embed_tokens.weight" in found
