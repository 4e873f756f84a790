"""Real configurations, restated as they are published, and what follows from them.

What vLLM reads from each is written down beside this file, so that plain functions are tested without it: ``python -m
tests.core.real_configs`` writes it anew, and `tests.core.model.test_config_reader` compares.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.model.checkpoint import Checkpoint, describe
from core.model.config_facts import ConfigFacts, facts_from
from core.model.config_reader import read_config
from core.model.files import open_files
from core.model.weight_files import Weights

FACTS = Path(__file__).with_name("real_facts.json")


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


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

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
            model_type="deepseek_v3",
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
        dense("Mistral", 32, 4096, 32, 8, 131072, sliding_window=None),
        7_248_023_552,
        kv_bytes_per_token=131_072,
        context_window=131_072,
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


ROPE8 = {"factor": 8.0, "rope_type": "linear"}
SIGLIP = {"model_type": "siglip_vision_model", "hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16}


def of(architecture: str, kind: str, *, dtype: str = "bfloat16", **config: Any) -> dict[str, Any]:
    """A config of few fields."""
    return {"architectures": [architecture], "model_type": kind, "torch_dtype": dtype, **config}


def gemma3(**text: Any) -> dict[str, Any]:
    """As Gemma 3 is published: the class knows the rest."""
    nested = {"model_type": "gemma3_text", "rope_scaling": ROPE8, **text}
    return of("Gemma3ForConditionalGeneration", "gemma3", text_config=nested, vision_config=SIGLIP)


GEMMA3_12B = {"hidden_size": 3840, "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 8}
QWEN_YARN = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}

# Configs on which a list of keys goes wrong, each with what vLLM 0.32 reads (issue 17).
ODD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gemma3-12b": (
        gemma3(**GEMMA3_12B),
        # Of 48 layers, 8 keep all tokens and 40 the last ones.
        {
            "context_window": 131_072,
            "multimodal": True,
            "kv_bytes_per_token": 8 * 2 * 8 * 256 * 2,
            "kv_sliding_bytes_per_token": 40 * 2 * 8 * 256 * 2,
            "kv_sliding_window": 4096,  # where a config leaves out its own 1,024
        },
    ),
    "gemma3-full": (gemma3(**GEMMA3_12B, max_position_embeddings=131_072), {"context_window": 131_072}),
    "gemma3-4b": (
        gemma3(hidden_size=2560, num_hidden_layers=34),
        {"layers": 34, "attention_heads": 8, "kv_heads": 4, "head_dim": 256, "context_window": 131_072},
    ),
    "paligemma2": (
        of(
            "PaliGemmaForConditionalGeneration",
            "paligemma",
            text_config=of(
                "Gemma2ForCausalLM",
                "gemma2",
                hidden_size=2304,
                intermediate_size=9216,
                num_hidden_layers=26,
                num_key_value_heads=4,
                sliding_window=4096,
                vocab_size=257_216,
            ),
            vision_config={"model_type": "siglip_vision_model"},
        ),
        {"attention_heads": 8, "kv_heads": 4, "context_window": 8192, "kv_sliding_window": 4096},
    ),
    "command-r": (
        of(
            "CohereForCausalLM",
            "cohere",
            hidden_size=8192,
            num_hidden_layers=40,
            num_attention_heads=64,
            num_key_value_heads=64,
            max_position_embeddings=8192,
            model_max_length=131_072,
            vocab_size=256_000,
            rope_theta=8e6,
        ),
        {"context_window": 131_072},
    ),
    "qwen2.5-yarn": (dense("Qwen2", 28, 3584, 28, 4, 32_768, rope_scaling=QWEN_YARN), {"context_window": 32_768}),
    "falcon-mamba": (
        of("FalconMambaForCausalLM", "falcon_mamba", hidden_size=4096, num_hidden_layers=64, state_size=16),
        {"layers": 64, "kv_heads": 0, "kv_bytes_per_token": 0, "any_window": True, "context_window": 2048},
    ),
    "bloom-560m": (
        of("BloomForCausalLM", "bloom", n_embed=1024, n_layer=24, num_attention_heads=16, seq_length=2048),
        {"hidden_size": 1024, "layers": 24, "kv_heads": 16, "context_window": 2048},
    ),
    "null text config": (
        dense("Llama", 30, 576, 9, 9, 8192, text_config=None),
        {"layers": 30, "hidden_size": 576, "context_window": 8192},
    ),
    "pixtral-12b": (
        of(
            "LlavaForConditionalGeneration",
            "llava",
            text_config={
                "model_type": "mistral",
                "hidden_size": 5120,
                "head_dim": 128,
                "intermediate_size": 14_336,
                "max_position_embeddings": 1_024_000,
                "num_hidden_layers": 40,
                "num_key_value_heads": 8,
                "sliding_window": None,
                "vocab_size": 131_072,
            },
            vision_config={"model_type": "pixtral"},
        ),
        {"attention_heads": 32, "kv_heads": 8, "context_window": 1_024_000, "kv_bytes_per_token": 40 * 2 * 8 * 128 * 2},
    ),
    "deepseek-vl2-tiny": (
        of(
            "DeepseekVLV2ForCausalLM",
            "deepseek_vl_v2",
            language_config={
                "model_type": "deepseek_v2",
                "hidden_size": 1280,
                "num_hidden_layers": 12,
                "num_attention_heads": 10,
                "num_key_value_heads": 10,
                "kv_lora_rank": None,
                "q_lora_rank": None,
                "qk_nope_head_dim": 0,
                "qk_rope_head_dim": 0,
                "v_head_dim": 0,
                "use_mla": False,
                "n_routed_experts": 64,
                "max_position_embeddings": 4096,
            },
            vision_config={"model_type": "vision"},
            projector_config={"model_type": "mlp_projector"},
        ),
        {"layers": 12, "attention_heads": 10, "kv_heads": 10, "context_window": 4096, "kv_replicated": False},
    ),
    "glm4-9b": (
        of(
            "ChatGLMModel",
            "chatglm",
            hidden_size=4096,
            num_layers=40,
            num_attention_heads=32,
            multi_query_attention=True,
            multi_query_group_num=2,
            kv_channels=128,
            seq_length=131_072,
            padded_vocab_size=151_552,
        ),
        {"kv_heads": 2, "context_window": 131_072, "kv_bytes_per_token": 40_960},
    ),
    "dbrx": (
        of(
            "DbrxForCausalLM",
            "dbrx",
            d_model=6144,
            n_heads=48,
            n_layers=40,
            max_seq_len=32_768,
            vocab_size=100_352,
            attn_config={"kv_n_heads": 8, "clip_qkv": 8, "rope_theta": 500_000},
            ffn_config={"ffn_hidden_size": 10_752, "moe_num_experts": 16, "moe_top_k": 4},
        ),
        {"kv_heads": 8, "layers": 40, "context_window": 32_768, "kv_bytes_per_token": 163_840},
    ),
    "falcon-7b": (
        of(
            "FalconForCausalLM",
            "falcon",
            hidden_size=4544,
            num_hidden_layers=32,
            num_attention_heads=71,
            num_kv_heads=71,
            multi_query=True,
            new_decoder_architecture=False,
        ),
        {"kv_heads": 1, "kv_bytes_per_token": 32 * 2 * 64 * 2},
    ),
    "mistral-7b-v0.1": (
        dense("Mistral", 32, 4096, 32, 8, 32_768, sliding_window=4096),
        {
            "context_window": 32_768,
            "kv_bytes_per_token": 0,
            "kv_sliding_bytes_per_token": 131_072,
            "kv_sliding_window": 4096,
        },
    ),
    "jamba": (
        of(
            "JambaForCausalLM",
            "jamba",
            hidden_size=4096,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            attn_layer_period=8,
            attn_layer_offset=4,
            max_position_embeddings=262_144,
            num_experts=16,
        ),
        {"kv_bytes_per_token": 4 * 2 * 8 * 128 * 2, "experts": 16, "context_window": 262_144},
    ),
    "qwen3-next": (
        of(
            "Qwen3NextForCausalLM",
            "qwen3_next",
            hidden_size=2048,
            num_hidden_layers=48,
            num_attention_heads=16,
            num_key_value_heads=2,
            head_dim=256,
            num_experts=512,
            max_position_embeddings=262_144,
        ),
        # A layer in four attends.
        {"kv_bytes_per_token": 12 * 2 * 2 * 256 * 2, "experts": 512, "context_window": 262_144},
    ),
    "whisper-large-v3": (
        of(
            "WhisperForConditionalGeneration",
            "whisper",
            d_model=1280,
            encoder_layers=32,
            decoder_layers=32,
            encoder_attention_heads=20,
            decoder_attention_heads=20,
            max_source_positions=1500,
            max_target_positions=448,
        ),
        {
            "context_window": 448,
            "kv_bytes_per_token": 32 * 2 * 20 * 64 * 2,
            "kv_bytes_per_sequence": 1500 * 32 * 2 * 20 * 64 * 2,
        },
    ),
    "fp8 cache": (
        dense("Llama", 32, 4096, 32, 8, 131_072, rope_scaling=LLAMA3)
        | {
            "quantization_config": {
                "quant_method": "modelopt",
                "producer": {"name": "modelopt"},
                "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
            }
        },
        {"kv_bytes_per_token": 65_536, "quantization": "modelopt"},
    ),
}
REAL |= {name: plain(config, 7_000_000_000, **facts) for name, (config, facts) in ODD.items()}


def real(name: str) -> Checkpoint:
    """Return the checkpoint of a real configuration."""
    entry = REAL[name]
    return describe(recorded()[name], Weights(entry.weight_bytes, entry.parameters, entry.dtype), source=name)


def recorded() -> dict[str, ConfigFacts]:
    """Return what vLLM reads from each, as written down."""
    return {name: facts_from(values) for name, values in json.loads(FACTS.read_text()).items()}


def read_all() -> dict[str, ConfigFacts]:
    """Have vLLM read each, in one process."""
    with tempfile.TemporaryDirectory() as folder:
        return {name: _read(Path(folder, str(index)), entry.config) for index, (name, entry) in enumerate(REAL.items())}


def _read(folder: Path, config: dict[str, Any]) -> ConfigFacts:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return read_config(open_files(str(folder), None), {})


if __name__ == "__main__":
    FACTS.write_text(json.dumps({name: asdict(facts) for name, facts in read_all().items()}, indent=1) + "\n")
