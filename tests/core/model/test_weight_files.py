"""Weight files of a directory: what they come to once vLLM has loaded them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.errors import UserError
from core.model.files import open_files
from core.model.weight_files import Weights, read_weights
from tests.checkpoints import write_checkpoint

EMBEDDING = np.arange(256 * 64, dtype=np.float32).reshape(256, 64)
BYTES = EMBEDDING.nbytes


def weights_of(folder: Path, config: dict[str, Any], arguments: dict[str, Any] | None = None) -> Weights:
    return read_weights(open_files(str(folder), None), config, arguments or {})


@pytest.mark.parametrize(
    ("head", "tied", "held"),
    [(EMBEDDING, True, 1), (EMBEDDING, False, 2), (EMBEDDING + 1, True, 2), (EMBEDDING[:128], True, 1.5)],
)
def test_a_tied_head_that_is_stored_as_well_is_held_once_where_it_is_a_copy(
    tmp_path: Path, head: Any, tied: bool, held: float
) -> None:
    folder = write_checkpoint(tmp_path / "a")
    save_file({"model.embed_tokens.weight": EMBEDDING, "lm_head.weight": head}, folder / "model.safetensors")
    found = weights_of(folder, {"tie_word_embeddings": tied})
    assert (found.bytes, found.parameters) == (held * BYTES, held * EMBEDDING.size)


def test_layers_that_are_not_loaded_take_no_memory(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    names = ("model.layers.0.mlp.weight", "model.layers.1.mlp.weight")
    save_file(dict.fromkeys(names, EMBEDDING), folder / "model.safetensors")
    config = {"num_hidden_layers": 1, "num_nextn_predict_layers": 1}
    assert weights_of(folder, config).bytes == BYTES
    assert weights_of(folder, config, {"speculative_config": {"method": "mtp"}}).bytes == 2 * BYTES


def test_weights_of_another_repository_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    assert weights_of(folder, {"text_model_id": None}).bytes == BYTES
    with pytest.raises(UserError, match=r"load weights of 'org/llama' besides \(text_model_id\)"):
        weights_of(folder, {"text_model_id": "org/llama"})


def test_ranks_hold_parts_of_the_same_tensors(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    for rank in (0, 1):
        save_file(
            {"model.embed_tokens.weight": EMBEDDING[128 * rank :][:128].copy()},
            folder / f"model-rank-{rank}-part-0.safetensors",
        )
    found = weights_of(folder, {}, {"load_format": "sharded_state"})
    assert found.files == ("model-rank-0-part-0.safetensors", "model-rank-1-part-0.safetensors")
    assert found.bytes == BYTES
    with pytest.raises(UserError, match="both hold tensor"):
        weights_of(folder, {})
