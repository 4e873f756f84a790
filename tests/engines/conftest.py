"""Checkpoints and the reference that engine tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import models
from tests.engines.fake_kubernetes import FakeKubernetes
from tests.engines.kuberay_flow import a_world

WINDOW = 512


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.cache_directory(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def smollm2(model_cache: Path) -> Path:
    return models.smollm2(model_cache)


@pytest.fixture(scope="session")
def padded_smollm2(model_cache: Path) -> Path:
    return models.padded_smollm2(model_cache)


@pytest.fixture(scope="session")
def tiny_vlm(model_cache: Path) -> Path:
    return models.tiny_vlm(model_cache)


@pytest.fixture(scope="session")
def harness(smollm2: Path) -> Any:
    """lm-evaluation-harness's own Hugging Face backend in float32.

    Its window is one token shorter than the engines' because vLLM keeps room for one generated token.
    """
    import torch
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(1)  # the engine and the other worker have the cores; threads that wait would spin
    return HFLM(pretrained=str(smollm2), device="cpu", dtype="float32", max_length=WINDOW - 1, batch_size=1)


@pytest.fixture
def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[FakeKubernetes]:
    """A Kubernetes API server that speaks what is used of it, and this process logged in to it."""
    with a_world(tmp_path, monkeypatch, caplog) as found:
        yield found
