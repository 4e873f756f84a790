"""Checkpoints for tests, made once: in $STEELYARD_TEST_CACHE, or in ~/.cache/steelyard where that is present."""

from __future__ import annotations

import os
from pathlib import Path

from deployments.demo_model import make_smollm2, pad_heads, tiny_llama


def cache_directory(fallback: Path) -> Path:
    """Where checkpoints outlive the test session; ``fallback`` where there is no such place."""
    named = os.environ.get("STEELYARD_TEST_CACHE")
    if named:
        return Path(named)
    usual = Path.home() / ".cache" / "steelyard"
    return usual if usual.is_dir() else fallback


def smollm2(cache: Path) -> Path:
    """SmolLM2-135M-Instruct, bfloat16."""
    return make_smollm2(cache)


def padded_smollm2(cache: Path) -> Path:
    """The same with heads that two ranks can share."""
    return pad_heads(smollm2(cache), cache / "smollm2-135m-instruct-padded")


def tiny(cache: Path) -> Path:
    """Two layers of random weights behind the same tokenizer."""
    return tiny_llama(cache, smollm2(cache))
