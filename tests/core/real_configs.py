"""Real configurations, restated: the fields that placement reads, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.model.checkpoint import Checkpoint, describe
from core.model.weight_files import Weights


@dataclass(frozen=True)
class Real:
    """A config.json's relevant fields, weight bytes as stored, and expected facts."""

    config: dict[str, Any]
    weight_bytes: int
    parameters: int | None
    dtype: str
    facts: dict[str, Any]


def dense(kind: str, layers: int, hidden: int, heads: int, kv: int, window: int, **more: Any) -> dict[str, Any]:
    return {
        "architectures": [f"{kind}ForCausalLM"],
        "model_type": kind.lower(),
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "max_position_embeddings": window,
        **more,
    }


def plain(config: dict[str, Any], parameters: int, **facts: Any) -> Real:
    return Real(config, 2 * parameters, parameters, "bfloat16", facts)


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}

REAL = {
    "Llama-3.1-8B": plain(
        dense("Llama", 32, 4096, 32, 8, 131072, rope_scaling=LLAMA3),
        8_030_261_248,
        head_dim=128,
        kv_bytes_per_token=131_072,
        context_window=131_072,
        experts=0,
    ),
    "Llama-3.1-70B": plain(
        dense("Llama", 80, 8192, 64, 8, 131072, rope_scaling=LLAMA3), 70_553_706_496, kv_bytes_per_token=327_680
    ),
    "Llama-3.1-405B": plain(
        dense("Llama", 126, 16384, 128, 8, 131072, rope_scaling=LLAMA3), 405_853_388_800, kv_bytes_per_token=516_096
    ),
    "Qwen3-0.6B": plain(
        dense("Qwen3", 28, 1024, 16, 8, 40960, head_dim=128), 751_632_384, head_dim=128, kv_bytes_per_token=114_688
    ),
    "Qwen3-32B": plain(
        dense("Qwen3", 64, 5120, 64, 8, 40960, head_dim=128), 32_762_123_264, head_dim=128, kv_bytes_per_token=262_144
    ),
    "Mixtral-8x22B": plain(
        dense("Mixtral", 56, 6144, 48, 8, 65536, num_local_experts=8),
        140_620_634_112,
        head_dim=128,
        kv_bytes_per_token=229_376,
        experts=8,
    ),
    "DeepSeek-V3": Real(
        dense(
            "DeepseekV3",
            61,
            7168,
            128,
            128,
            163840,
            kv_lora_rank=512,
            qk_rope_head_dim=64,
            n_routed_experts=256,
            quantization_config={"quant_method": "fp8"},
            rope_scaling={"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096},
        ),
        688_586_727_753,
        684_531_386_000,
        "float8_e4m3fn",
        {"kv_bytes_per_token": 61 * 576 * 2, "kv_replicated": True, "experts": 256, "context_window": 163_840},
    ),
    "long-7B": plain(
        dense("Mistral", 32, 4096, 32, 8, 131072), 7_248_023_552, kv_bytes_per_token=131_072, context_window=131_072
    ),
    "Llama-70B-AWQ": Real(
        dense("Llama", 80, 8192, 64, 8, 8192, quantization_config={"quant_method": "awq", "bits": 4}),
        39_770_000_000,
        70_553_706_496,
        "float16",
        {"quantization": "awq", "parameters": 70_553_706_496, "kv_bytes_per_token": 327_680},
    ),
}

# Flat, with the sight's own size beside that of the text.
REAL["Qwen2.5-VL-7B"] = plain(
    {
        **dense("Qwen2_5_VL", 28, 3584, 28, 4, 128000, rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]}),
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "image_token_id": 151655,
        "vision_config": {"depth": 32, "hidden_size": 1280, "num_heads": 16, "out_hidden_size": 3584},
    },
    8_292_166_656,
    multimodal=True,
    hidden_size=3584,
    head_dim=128,
    kv_bytes_per_token=57_344,
    context_window=128_000,
)
# Nested, and what equals LlamaConfig's defaults is left out.
REAL["llava-1.5-7b"] = Real(
    {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": 32000,
        "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064},
        "vision_config": {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24},
    },
    14_126_854_144,
    7_063_427_072,
    "float16",
    {"multimodal": True, "layers": 32, "kv_heads": 32, "kv_bytes_per_token": 524_288, "context_window": 4096},
)


def real(name: str) -> Checkpoint:
    """Return the checkpoint of a real configuration."""
    entry = REAL[name]
    return describe(entry.config, Weights(entry.weight_bytes, entry.parameters, entry.dtype), source=name)
