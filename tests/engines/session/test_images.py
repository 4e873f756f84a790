"""Images through both engines on a real vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.distributed.cluster import ClusterSpec
from engines.distributed.engine import DistributedEngine
from engines.engine import Engine, EngineConfig
from engines.process.lightweight import LightweightEngine
from tests.engines import image_contract
from tests.engines.conftest import WINDOW

pytestmark = pytest.mark.slow


def config(model: Path, **more: Any) -> EngineConfig:
    return EngineConfig(model=str(model), dtype="float32", max_model_len=WINDOW, device="cpu", gpu_memory_gb=3, **more)


@pytest.fixture(scope="module")
def engine(tiny_vlm: Path) -> Iterator[Engine]:
    engine = LightweightEngine(config(tiny_vlm))
    engine.open()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def distributed_engine(tiny_vlm: Path) -> Iterator[Engine]:
    engine = DistributedEngine(config(tiny_vlm, tensor_parallel=2), ClusterSpec((0, 1), 2, "cpu"), idle_seconds=0)
    engine.open()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def harness(tiny_vlm: Path) -> Any:
    """lm-evaluation-harness's own backend for images, in float32."""
    from lm_eval.models.hf_vlms import HFMultimodalLM

    return HFMultimodalLM(pretrained=str(tiny_vlm), device="cpu", dtype="float32", max_length=WINDOW - 1, batch_size=1)


@pytest.mark.vllm
class TestContract:
    @pytest.mark.parametrize("chat", [True, False])
    def test_answers_as_the_harness_does(self, engine: Engine, tiny_vlm: Path, harness: Any, chat: bool) -> None:
        image_contract.answers_as_the_harness_does(engine, tiny_vlm, harness, chat=chat)

    def test_tells_images_apart(self, engine: Engine) -> None:
        image_contract.tells_images_apart(engine)

    def test_keeps_images_in_their_order(self, engine: Engine) -> None:
        image_contract.keeps_images_in_their_order(engine)

    def test_answers_text_as_before(self, engine: Engine) -> None:
        image_contract.answers_text_as_before(engine)

    def test_cuts_text_before_an_image_and_never_an_image(self, engine: Engine) -> None:
        image_contract.cuts_text_before_an_image_and_never_an_image(engine)

    def test_forgets_an_image_that_was_not_asked(self, engine: Engine) -> None:
        image_contract.forgets_an_image_that_was_not_asked(engine)

    def test_answers_what_it_cannot_place(self, engine: Engine) -> None:
        image_contract.answers_what_it_cannot_place(engine)


@pytest.mark.vllm
@pytest.mark.slow
class TestDistributed:
    def test_answers_as_the_harness_does(self, distributed_engine: Engine, tiny_vlm: Path, harness: Any) -> None:
        """And so as the lightweight engine."""
        image_contract.answers_as_the_harness_does(distributed_engine, tiny_vlm, harness, chat=True)

    def test_tells_images_apart(self, distributed_engine: Engine) -> None:
        image_contract.tells_images_apart(distributed_engine)

    def test_answers_what_it_cannot_place(self, distributed_engine: Engine) -> None:
        image_contract.answers_what_it_cannot_place(distributed_engine)
