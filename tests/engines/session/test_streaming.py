"""Weights that real vLLM streams from a real S3 server."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from safetensors.torch import load_file, save_file

from core.campaign import ModelSpec
from core.errors import UserError
from core.model.checkpoint import Checkpoint, read_checkpoint
from core.model.weights import fetch_checkpoint
from deployments.demo_model import write_llama
from engines.engine import EngineConfig
from engines.process.lightweight import LightweightEngine
from engines.session import arguments as vllm_arguments
from tests.engines import contract
from tests.engines.conftest import WINDOW


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of engines that died stay with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def folder(smollm2: Path, tmp_path: Path) -> Path:
    """A checkpoint whose config says that its embeddings are tied. They are not, which vLLM finds in the headers of its files."""
    folder = tmp_path / "m"
    sizes = {"hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 2, "max_position_embeddings": 512}
    write_llama(smollm2, folder, "bfloat16", **sizes)
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = -tensors["model.embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def checkpoint(folder: Path, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """The same on S3, and an empty cache on this machine."""
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("s3", skip_instance_cache=True).put(f"{folder}/", f"{s3_root}/m/", recursive=True)
    return read_checkpoint(f"{s3_root}/m")


def from_disk(folder: Path) -> EngineConfig:
    return EngineConfig(model=str(folder), dtype="float32", max_model_len=WINDOW, device="cpu", gpu_memory_gb=3)


def streamed(checkpoint: Checkpoint) -> EngineConfig:
    bare = fetch_checkpoint(checkpoint, weights=False)
    return replace(from_disk(bare), checkpoint=checkpoint, stream=True)


def scores(config: EngineConfig) -> list[float]:
    engine = LightweightEngine(config)
    engine.open()
    try:
        return [score.logprob for score in contract.scores(engine, [("The capital", " of France"), ("is", " Paris.")])]
    finally:
        engine.close()


@pytest.mark.vllm
@pytest.mark.s3
def test_streamed_weights_score_as_from_a_disk_and_are_on_none(
    folder: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    assert scores(streamed(checkpoint)) == pytest.approx(scores(from_disk(folder)), abs=1e-6)
    weights = (folder / "model.safetensors").stat().st_size
    assert weights > 1000 * max(path.stat().st_size for path in (tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.vllm
@pytest.mark.s3
def test_one_that_was_written_to_meanwhile_is_refused(checkpoint: Checkpoint) -> None:
    engine = LightweightEngine(streamed(replace(checkpoint, identity="0" * 64)))
    with pytest.raises(UserError, match="was written to since the campaign was planned"):
        engine.open()
    engine.close()


def test_without_the_streamer_there_is_no_streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelSpec(model="s3://bucket/m", stream_weights=True)
    vllm_arguments.check_arguments([model])
    monkeypatch.setattr(vllm_arguments, "STREAMER", ("no_such_streamer",))
    with pytest.raises(
        UserError, match=r"model 'm': stream_weights needs vLLM's streamer: pip install 'steelyard\[stream\]'"
    ):
        vllm_arguments.check_arguments([model])
