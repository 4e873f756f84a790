"""Checkpoints of the demo and the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.demo_model import _once
from tests import models


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.cache_directory(tmp_path_factory.mktemp("models"))


def logits(checkpoint: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(checkpoint)("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)(**tokens).logits


def test_padded_heads_change_no_logit(cache: Path) -> None:
    import torch

    padded = models.padded_smollm2(cache)
    assert torch.allclose(logits(padded), logits(models.smollm2(cache)), atol=1e-4)


def test_padded_heads_divide_by_two(cache: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(models.padded_smollm2(cache))
    assert (config.num_attention_heads, config.num_key_value_heads) == (12, 4)


def test_the_demo_model_has_a_chat_template(cache: Path) -> None:
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(models.smollm2(cache)).chat_template


def test_a_checkpoint_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        _once(tmp_path / "model", write)
    assert list(tmp_path.iterdir()) == []


def test_a_complete_checkpoint_is_not_made_again(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        raise AssertionError("made again")

    (tmp_path / "model").mkdir()
    assert _once(tmp_path / "model", write) == tmp_path / "model"
