"""What people ask for in the Prefect UI, asked through its API. The engine is scripted; Prefect is real."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Paused, Running, State

from core.request import Generated, Request, Response
from core.results import open_store
from flows.campaign import CampaignFailedError, campaign
from tests.checkpoints import write_checkpoint
from tests.scripted_engine import ScriptedEngine

LIMIT = 6


class SlowEngine(ScriptedEngine):
    """Stops after ``at`` answers until ``go`` is set."""

    def __init__(self, at: int) -> None:
        super().__init__(self.answer)
        self.at, self.reached, self.go = at, threading.Event(), threading.Event()

    def answer(self, request: Request) -> Response:
        if len(self.seen) > self.at:
            self.reached.set()
            self.go.wait(60)
        return Generated(request.id, " 4", "stop", prompt_tokens=5, completion_tokens=1)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowEngine]:
    engine = SlowEngine(at=2)
    monkeypatch.setattr("engines.bench.bench.build_engine", lambda *_: engine)
    yield engine
    engine.go.set()


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    return {
        "name": f"heed-{tmp_path.name}"[:60],
        "models": [str(write_checkpoint(tmp_path / "model", 0))],
        "benchmarks": [{"name": "steelyard_arithmetic", "limit": LIMIT}],
        "fleet": {"gpus": 1, "gpu_memory_gb": 8, "device": "cpu"},
        "results": str(tmp_path / "results"),
    }


def runs(spec: dict[str, Any], tag: str) -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate({"tags": {"all_": [tag]}}))


def ask(spec: dict[str, Any], state: State) -> None:
    """Set the state of the model's run, as the UI does."""
    (run,) = runs(spec, f"campaign:{spec['name']}")
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, state, force=True)


def start(spec: dict[str, Any]) -> tuple[threading.Thread, list[BaseException]]:
    ended: list[BaseException] = []

    def body() -> None:
        try:
            campaign(spec)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    return thread, ended


def test_a_model_cancelled_in_the_middle_ends_its_engine_and_resumes_later(
    engine: SlowEngine, spec: dict[str, Any]
) -> None:
    thread, ended = start(spec)
    assert engine.reached.wait(60)
    ask(spec, Cancelling())
    answers_after_a_while(engine)
    thread.join(60)
    assert not thread.is_alive()
    assert engine.closed == 1
    (error,) = ended
    assert isinstance(error, CampaignFailedError)
    assert "cancelled" in error.failures["model"]
    (run,) = runs(spec, f"campaign:{spec['name']}")
    assert run.state is not None
    assert run.state.is_cancelled()
    assert run.name == "model · lightweight"
    before = len(engine.seen)
    assert 0 < before < LIMIT
    campaign(spec)
    assert len(engine.seen) == LIMIT
    assert len(open_store(spec["results"]).samples()) == LIMIT


def test_a_paused_model_waits_and_goes_on_when_resumed(engine: SlowEngine, spec: dict[str, Any]) -> None:
    thread, ended = start(spec)
    assert engine.reached.wait(60)
    ask(spec, Paused(timeout_seconds=3600))
    answers_after_a_while(engine).wait(30)
    assert len(engine.seen) < LIMIT
    assert thread.is_alive()
    ask(spec, Running())
    thread.join(60)
    assert ended == []
    assert len(open_store(spec["results"]).samples()) == LIMIT


def answers_after_a_while(engine: SlowEngine) -> threading.Event:
    """Let the engine answer when what was asked has reached its model: two polls of the run's state later."""
    answered = threading.Event()

    def answer() -> None:
        engine.go.set()
        answered.set()

    threading.Timer(9.0, answer).start()
    return answered
