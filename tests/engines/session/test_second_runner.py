"""vLLM's second model runner, which GPUs have: real, with its kernels in Triton's interpreter (`tests.triton_interpreted`)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.engine import Engine
from engines.process.child import Child
from engines.process.lightweight import LightweightEngine, start_process
from tests.engines import contract
from tests.engines.process.test_lightweight import config

INTERPRETED = Path(__file__).resolve().parents[2] / "triton_interpreted"

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
]


class SecondRunnerEngine(LightweightEngine):
    """Its process is never one that was started before, with another environment."""

    def process(self) -> Child:
        return start_process("cpu")


@pytest.fixture(scope="module")
def engine(smollm2: Path) -> Iterator[LightweightEngine]:
    path = os.pathsep.join(filter(None, (str(INTERPRETED), os.environ.get("PYTHONPATH"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        patch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
        engine = SecondRunnerEngine(config(smollm2))
        info = engine.open()
    assert (info.detail["model_runner"], info.detail["scored_rows_only"]) == (2, True)
    yield engine
    engine.close()


@pytest.mark.parametrize(
    "owed",
    [
        contract.scores_single_letters,
        contract.scores_texts_behind_a_cached_context,
        contract.scores_again_what_the_cache_covers,
        contract.scores_more_choices_than_one_request_takes,
        contract.scores_without_context,
        contract.drops_what_does_not_fit,
        contract.scores_a_text_in_windows,
    ],
    ids=lambda owed: owed.__name__,
)
def test_scores_as_the_harness_does(
    owed: Callable[[Engine, Any], None], engine: LightweightEngine, harness: Any
) -> None:
    owed(engine, harness)


def test_generates_what_the_model_knows(engine: LightweightEngine) -> None:
    contract.generates_what_the_model_knows(engine)
