"""A campaign whose engines fail: started again, moved, or short of the requests that kill them. The engines are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from core.errors import EngineDiedError
from core.request import Request, Response
from core.results import open_store
from engines.host.slots import DevicePool, Held, holders
from flows.campaign import CampaignFailedError, campaign
from tests.flows.scripted import BENCHMARKS, LIMIT, answer, no_cluster
from tests.scripted_engine import ScriptedEngine

MEMORY = "torch.OutOfMemoryError: CUDA out of memory"


class Failing:
    """Builds engines and remembers (engine, devices, options) of each; ``fault`` may raise at the requests of any."""

    def __init__(self) -> None:
        self.built: list[tuple[str, int, dict[str, Any]]] = []
        self.engines: list[ScriptedEngine] = []
        self.fault: Callable[[Request], None] = lambda request: None

    def build(self, spec: Any, planned: Any, config: Any, held: Held, cluster: Any) -> ScriptedEngine:
        self.built.append((planned.placement.engine, len(held.devices), config.extra))

        def answers(request: Request) -> Response:
            self.fault(request)
            return answer(request)

        self.engines.append(ScriptedEngine(answers))
        return self.engines[-1]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    found = Failing()
    monkeypatch.setattr("engines.bench.bench.build_engine", found.build)
    monkeypatch.setattr("tasks.provision.provisioned", no_cluster)
    return found


@pytest.fixture
def one(spec: dict[str, Any]) -> dict[str, Any]:
    models = [{"model": spec["models"][0], "name": "first", "replicas": 1}]
    return {**spec, "models": models, "benchmarks": BENCHMARKS[1:]}


def faults(spec: dict[str, Any]) -> list[dict[str, Any]]:
    (record,) = open_store(spec["results"]).commit_records().values()
    found: list[dict[str, Any]] = record["metadata"].get("faults", [])
    return found


async def artifacts(key: str) -> list[str]:
    async with get_client() as client:
        found = await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
        return [artifact.data for artifact in found]  # type: ignore[misc]


def test_a_model_whose_engine_dies_loses_nothing_and_says_so(failing: Failing, one: dict[str, Any]) -> None:
    def dies_once(request: Request) -> None:
        if len(failing.engines) == 1 and len(failing.engines[0].seen) == 4:
            raise EngineDiedError("m: the engine process was killed by SIGKILL")

    failing.fault = dies_once
    before = set(asyncio.run(artifacts("faults-first")))  # other tests have the same server
    board = campaign(one).leaderboard
    assert list(board["docs"]) == [LIMIT]
    samples = open_store(one["results"]).samples()
    assert samples["error"].isna().all()
    assert len(samples) == LIMIT
    assert len(failing.engines[1].seen) == LIMIT - 3
    assert [(fault["fault"], fault["while"], fault["action"]) for fault in faults(one)] == [
        ("death", "answering", "restart")
    ]
    (shown,) = set(asyncio.run(artifacts("faults-first"))) - before
    assert "killed by SIGKILL" in shown
    assert "restart" in shown


def test_what_was_undisturbed_says_nothing_of_faults(failing: Failing, one: dict[str, Any]) -> None:
    campaign(one)
    assert faults(one) == []


def test_a_model_out_of_memory_ends_on_two_devices(failing: Failing, one: dict[str, Any]) -> None:
    def fits_two(request: Request) -> None:
        if failing.built[-1][0] == "lightweight" and len(failing.engines[0].seen) > 2:
            raise EngineDiedError(MEMORY)

    failing.fault = fits_two
    board = campaign(one).leaderboard
    assert [(engine, devices, sorted(extra)) for engine, devices, extra in failing.built] == [
        ("lightweight", 1, []),
        ("lightweight", 1, ["max_num_batched_tokens", "max_num_seqs"]),
        ("lightweight", 1, ["max_num_batched_tokens", "max_num_seqs"]),
        ("distributed", 2, []),
    ]
    assert [fault["action"] for fault in faults(one)] == ["smaller batch", "smaller batch", "move"]
    assert list(board["engine"]) == ["scripted"]
    assert list(board["tensor_parallel"]) == [2]
    assert "moved from lightweight" in board["reason"][0]
    assert set(failing.engines[0].seen[:2]).isdisjoint(failing.engines[-1].seen)  # what was answered stays
    assert open_store(one["results"]).samples()["error"].isna().all()
    assert holders(DevicePool("cpu", ("0", "1"))) == []


def test_a_model_that_nothing_helps_fails_with_the_arithmetic(failing: Failing, one: dict[str, Any]) -> None:
    def never(request: Request) -> None:
        raise EngineDiedError(MEMORY)

    failing.fault = never
    spec = {**one, "models": [{**one["models"][0], "engine": "lightweight"}], "policy": {"poison_requests": 0}}
    with pytest.raises(CampaignFailedError, match="GB weights .* GB per GPU were expected|poison_requests = 0"):
        campaign(spec)
    assert holders(DevicePool("cpu", ("0", "1"))) == []


def test_a_request_that_kills_the_engine_is_marked_and_the_rest_completes(
    failing: Failing, one: dict[str, Any]
) -> None:
    def poisoned(request: Request) -> None:
        if request.id == "steelyard_arithmetic/2/0/0":
            raise EngineDiedError("m: vLLM's engine core ended")

    failing.fault = poisoned
    campaign(one)
    samples = open_store(one["results"]).samples().set_index("doc_id")
    assert len(samples) == LIMIT
    assert list(samples.index[samples["error"].notna()]) == [2]
    assert samples["error"][2].startswith("poison request: the engine ended")
    assert faults(one)[-1]["reason"] == "request 'steelyard_arithmetic/2/0/0' ends it each time, and is left out"
