"""What is hashed is what is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.errors import UserError
from core.model.checkpoint import read_checkpoint
from tests.checkpoints import write_checkpoint

TENSOR = "model.embed_tokens.weight"


def weights(path: Path, seed: int, name: str = TENSOR) -> None:
    save_file({name: np.random.default_rng(seed).normal(size=(256, 64)).astype(np.float32)}, path)


def identity(folder: Path, **arguments: Any) -> str:
    return read_checkpoint(str(folder), **arguments).identity


def test_mistral_s_file_beside_the_other_is_what_is_hashed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    plain = identity(folder)
    weights(folder / "consolidated.safetensors", seed=1)
    first = read_checkpoint(str(folder))
    weights(folder / "consolidated.safetensors", seed=2)
    second = read_checkpoint(str(folder))
    assert len({plain, first.identity, second.identity}) == 3
    assert second.weight_files == ("consolidated.safetensors",)
    assert second.weight_bytes == 256 * 64 * 4, "and not those that vLLM leaves"
    (folder / "model.safetensors").unlink()
    assert identity(folder) == second.identity


def test_the_format_that_is_asked_for_decides(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    plain = identity(folder)
    weights(folder / "consolidated.safetensors", seed=1)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {TENSOR: "model.safetensors"}}))
    assert identity(folder, arguments={"load_format": "safetensors"}) == plain
    found = read_checkpoint(str(folder), arguments={"load_format": "Mistral"})
    assert (found.weight_files, found.identity) == (("consolidated.safetensors",), identity(folder))


def test_a_second_file_of_the_same_tensors_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    weights(folder / "pytorch_ema.safetensors", seed=1)
    with pytest.raises(UserError) as refused:
        read_checkpoint(str(folder))
    assert str(refused.value) == (
        f"'{folder}': model.safetensors and pytorch_ema.safetensors both hold tensor '{TENSOR}', and vLLM loads both, one over "
        "the other: move one of the two elsewhere"
    )


def test_a_file_of_further_tensors_is_hashed_and_counted(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    plain = read_checkpoint(str(folder))
    weights(folder / "vision.safetensors", seed=1, name="vision.weight")
    found = read_checkpoint(str(folder))
    assert found.identity != plain.identity
    assert (found.parameters, found.weight_bytes) == (2 * 256 * 64, 2 * 256 * 64 * 4)


def test_what_vllm_leaves_is_not_hashed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    plain = identity(folder)
    for name in (
        "pytorch_model.bin",
        "model.pt",
        "optimizer.pt",
        "training_args.bin",
        "model.gguf",
        "tekken.json",
        "spiece.model",
    ):
        (folder / name).write_text("1")
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}')
    (folder / "modeling_own.py").write_text("1")
    assert identity(folder) == plain
    index = json.dumps({"weight_map": {TENSOR: "model.safetensors"}})
    (folder / "model.safetensors.index.json").write_text(index)
    weights(folder / "pytorch_ema.safetensors", seed=1)
    assert identity(folder) == plain


@pytest.mark.parametrize("name", ["params.json", "tekken.json", "tokenizer.model.v7"])
def test_mistral_s_own_files_are_hashed_beside_its_weights(name: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    plain = identity(folder)
    (folder / name).write_text("{}")
    assert identity(folder) != plain


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("modeling_own.py", {"trust_remote_code": True}),
        ("tekken.json", {"arguments": {"tokenizer_mode": "mistral"}}),
        ("hf_quant_config.json", {}),
    ],
)
def test_what_is_read_besides_is_hashed_where_it_is_read(name: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    plain = identity(folder, **arguments)
    (folder / name).write_text("{}")
    assert identity(folder, **arguments) != plain


def test_a_vocabulary_is_hashed_where_no_other_is_read(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_text("a")
    plain = identity(folder)
    (folder / "spiece.model").write_text("b")
    assert identity(folder) != plain
