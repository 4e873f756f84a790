"""Checkpoint directories written by hand: a config and a few numbers, for what reads checkpoints and runs none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "vocab_size": 256,
    "torch_dtype": "float32",
}


def write_checkpoint(folder: Path, seed: int = 0, **config: object) -> Path:
    """Write a checkpoint of a few kilobytes; another ``seed`` is another checkpoint."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    weights = np.random.default_rng(seed).normal(size=(256, 64)).astype(np.float32)
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    save_file({"model.embed_tokens.weight": weights}, folder / "model.safetensors")
    return folder
