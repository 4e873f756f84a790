"""A campaign that uses both engines says whether they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from core.planning.canary import BENCHMARK
from core.request import Request, Response, Scored
from core.results import open_store
from engines.host.slots import Held
from flows.campaign import campaign
from tests.flows.scripted import BENCHMARKS, answer, no_cluster
from tests.scripted_engine import ScriptedEngine


def spread(request: Request) -> Response:
    """Choices that are clearly apart."""
    response = answer(request)
    return (
        replace(response, logprob=-3.0 * int(request.id.split("/")[2]) - 1.0)
        if isinstance(response, Scored)
        else response
    )


def mirrored(request: Request) -> Response:
    response = spread(request)
    return replace(response, logprob=-13.0 - response.logprob) if isinstance(response, Scored) else response


class TwoEngines:
    """Scripted engines by placement; remembers (model, engine) of each that was built, and how it was closed."""

    def __init__(self) -> None:
        self.built: list[tuple[str, str]] = []
        self.scripts: dict[str, Callable[[Request], Response]] = {"lightweight": spread, "distributed": spread}

    def build(self, spec: Any, planned: Any, config: Any, held: Held, cluster: Any) -> ScriptedEngine:
        self.built.append((planned.model.name, planned.placement.engine))
        return ScriptedEngine(self.scripts[planned.placement.engine])


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> TwoEngines:
    engines = TwoEngines()
    monkeypatch.setattr("engines.bench.bench.build_engine", engines.build)
    monkeypatch.setattr("tasks.provision.provisioned", no_cluster)
    return engines


@pytest.fixture
def mixed(spec: dict[str, Any]) -> dict[str, Any]:
    first, second = spec["models"]
    models = [{"model": first, "engine": "lightweight"}, {"model": second, "engine": "distributed"}]
    return {**spec, "models": models, "benchmarks": BENCHMARKS[:1], "policy": {"service_idle_seconds": 0}}


def said(spec: dict[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] | None = open_store(spec["results"]).campaigns("flows")[-1]["engines"]
    return found


def test_engines_that_agree_are_said_to_and_not_asked_again(two: TwoEngines, mixed: dict[str, Any]) -> None:
    campaign(mixed)
    found = said(mixed)
    assert found is not None
    assert (found["docs"], found["same_answers"], found["faults"]) == (BENCHMARK.limit, BENCHMARK.limit, [])
    canaries = two.built[2:]
    assert {engine for _, engine in canaries} == {"lightweight", "distributed"}
    assert len({model for model, _ in canaries}) == 1
    two.built.clear()
    campaign(mixed)
    assert said(mixed) == found
    assert two.built == []


def test_engines_that_differ_are_said_to(two: TwoEngines, mixed: dict[str, Any]) -> None:
    two.scripts["distributed"] = mirrored
    campaign(mixed)
    found = said(mixed)
    assert found is not None
    assert "Do not compare scores across engines" in found["text"]


def test_a_canary_that_dies_fails_no_campaign(two: TwoEngines, mixed: dict[str, Any]) -> None:
    def dies_on_the_set(request: Request) -> Response:
        if int(request.id.split("/")[1]) >= 6:  # the campaign itself asks fewer docs
            raise RuntimeError("gone")
        return spread(request)

    two.scripts["distributed"] = dies_on_the_set
    assert len(campaign(mixed).leaderboard) == 2
    found = said(mixed)
    assert found is not None
    assert found["text"].startswith("Whether both engines score alike is not known: ")


def test_one_engine_or_a_wish_not_to_needs_no_canary(two: TwoEngines, mixed: dict[str, Any]) -> None:
    campaign({**mixed, "canary": False})
    assert said(mixed) is None
    assert len(two.built) == 2
