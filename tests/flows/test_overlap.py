"""Steps of one model that overlap: preparing, answering, scoring. The engines are scripted, the rest is real."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import tasks.prepare
from core.cell_work import CellWork
from core.errors import UserError
from core.monitor.timeline import lanes
from core.request import Request, Response
from core.results import open_store
from core.sample import Scoring
from engines.host.slots import DevicePool, holders
from flows.campaign import CampaignFailedError, campaign
from tests.flows.scripted import LIMIT, Engines, answer

SECONDS = 60


@pytest.fixture
def one_model(spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A campaign whose engine does not wait for a process that imports vLLM."""
    monkeypatch.setattr("flows.cells.IMPORT_SECONDS", 0.0)
    return {**spec, "models": spec["models"][:1], "fleet": {**spec["fleet"], "gpus": 1}}


@pytest.fixture
def preparing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[CellWork], CellWork]], None]:
    """Have a function see each cell when it is prepared, and change it, wait or raise."""
    real = tasks.prepare.prepare_cell

    def install(see: Callable[[CellWork], CellWork]) -> None:
        monkeypatch.setattr("tasks.prepare.prepare_cell", lambda *arguments: see(real(*arguments)))

    return install


def test_an_engine_answers_while_another_benchmark_is_prepared(
    engines: Engines, one_model: dict[str, Any], preparing: Callable[..., None]
) -> None:
    answering = threading.Event()

    def see(work: CellWork) -> CellWork:
        if work.cell.benchmark == "steelyard_arithmetic":
            assert answering.wait(SECONDS)
        return work

    def answers(request: Request) -> Response:
        answering.set()
        return answer(request)

    preparing(see)
    engines.scripts["first"] = answers
    result = campaign(one_model)
    assert list(result.leaderboard["docs"]) == [LIMIT, LIMIT]
    (run,) = open_store(one_model["results"]).campaigns()
    assert run["models"][0]["cells"].keys() == {"steelyard_facts", "steelyard_arithmetic"}


def test_a_benchmark_that_cannot_be_prepared_is_named_and_the_others_are_stored(
    engines: Engines, one_model: dict[str, Any], preparing: Callable[..., None]
) -> None:
    answering = threading.Event()

    def see(work: CellWork) -> CellWork:
        if work.cell.benchmark == "steelyard_arithmetic":
            assert answering.wait(SECONDS)
            raise UserError("dataset 'arithmetic' cannot be had")
        return work

    def answers(request: Request) -> Response:
        answering.set()
        return answer(request)

    preparing(see)
    engines.scripts["first"] = answers
    with pytest.raises(CampaignFailedError, match="first: .*dataset 'arithmetic' cannot be had"):
        campaign(one_model)
    assert list(open_store(one_model["results"]).leaderboard("flows")["benchmark"]) == ["steelyard_facts"]
    assert engines.built["first"].closed == 1


def test_nothing_to_compute_is_found_without_an_engine_whatever_fails(
    engines: Engines, one_model: dict[str, Any], preparing: Callable[..., None]
) -> None:
    campaign(one_model)
    engines.built.clear()

    def see(work: CellWork) -> CellWork:
        if work.cell.benchmark == "steelyard_arithmetic":
            raise UserError("dataset 'arithmetic' cannot be had")
        return work

    preparing(see)
    with pytest.raises(CampaignFailedError, match="dataset 'arithmetic' cannot be had"):
        campaign(one_model)
    assert engines.built == {}


def test_devices_are_free_while_the_last_answers_are_scored(
    engines: Engines, one_model: dict[str, Any], preparing: Callable[..., None]
) -> None:
    class Slow:
        """A benchmark whose scoring takes until nobody holds the device."""

        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def score(self, responses: Any) -> Scoring:
            deadline = time.monotonic() + SECONDS
            while holders(DevicePool("cpu", ("0",))):
                assert time.monotonic() < deadline
                time.sleep(0.02)  # a lock tells nobody that it is free
            assert engines.built["first"].closed == 1
            scoring: Scoring = self._real.score(responses)
            return scoring

    preparing(lambda work: replace(work, benchmark=Slow(work.benchmark)))
    result = campaign(one_model)
    assert len(result.leaderboard) == 2
    (lane,) = lanes(open_store(one_model["results"]).timeline("flows", result.run))
    closed = next(span.ended for span in lane.spans if span.phase == "close")
    assert all(span.ended > closed for span in lane.spans if span.phase == "score")
