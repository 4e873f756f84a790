"""Weights that real vLLM streams from a real S3 server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from core.campaign import ModelSpec
from core.checkpoint.checkpoint import Checkpoint, read_checkpoint
from core.checkpoint.weights import fetch_checkpoint
from core.errors import UserError
from engines import vllm_arguments
from engines.engine import EngineConfig
from engines.lightweight import LightweightEngine
from tests.engines import contract
from tests.engines.conftest import WINDOW


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of engines that died stay with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def checkpoint(smollm2: Path, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """SmolLM2 on S3, and an empty cache on this machine."""
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("s3", skip_instance_cache=True).put(f"{smollm2}/", f"{s3_root}/m/", recursive=True)
    return read_checkpoint(f"{s3_root}/m")


def config(checkpoint: Checkpoint) -> EngineConfig:
    return EngineConfig(
        model=str(fetch_checkpoint(checkpoint, weights=False)),
        dtype="float32",
        max_model_len=WINDOW,
        device="cpu",
        gpu_memory_gb=3,
        checkpoint=checkpoint,
        stream=True,
    )


@pytest.fixture
def engine(checkpoint: Checkpoint) -> Iterator[LightweightEngine]:
    engine = LightweightEngine(config(checkpoint))
    engine.open()
    yield engine
    engine.close()


@pytest.mark.vllm
@pytest.mark.s3
def test_a_streamed_model_knows_what_it_knows_and_its_weights_are_on_no_disk(
    engine: LightweightEngine, tmp_path: Path
) -> None:
    contract.generates_what_the_model_knows(engine)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.vllm
@pytest.mark.s3
def test_one_that_was_written_to_meanwhile_is_refused(checkpoint: Checkpoint) -> None:
    engine = LightweightEngine(config(replace(checkpoint, identity="0" * 64)))
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
