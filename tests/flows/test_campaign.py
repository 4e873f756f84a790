"""Flow logic, with a scripted engine in place of vLLM; everything else is real."""

import threading
from pathlib import Path
from typing import Any, cast

import pytest
from prefect import get_client
from prefect.artifacts import Artifact
from prefect.client.schemas.sorting import FlowRunSort

from core.campaign import load_spec
from core.errors import EngineDiedError, UserError
from core.monitor.timeline import lanes
from core.request import Generated, Request, Response, Scored
from core.results import open_store
from core.upkeep.status import statuses
from flows.campaign import CampaignFailedError, campaign
from tasks.artifacts import artifact_key
from tests.core.task_folder import CHOOSE, GENERATE, Function, write_task
from tests.flows.scripted import BENCHMARKS, LIMIT, Engines, answer


def test_every_model_runs_every_benchmark_and_lands_in_the_store(engines: Engines, spec: dict[str, Any]) -> None:
    result = campaign(spec)
    board = result.leaderboard
    assert sorted(zip(board["model"], board["benchmark"], strict=True)) == [
        (model, benchmark) for model in ("first", "second") for benchmark in ("steelyard_arithmetic", "steelyard_facts")
    ]
    assert set(board["docs"]) == {LIMIT}
    samples = open_store(spec["results"]).samples()
    assert not samples.duplicated(["model", "benchmark", "task", "doc_id"]).any()
    assert len(samples) == 4 * LIMIT
    assert {engine.closed for engine in engines.built.values()} == {1}
    page = Path(spec["results"]) / "reports" / f"campaign={spec['name']}" / f"{result.run}.html"
    assert "2 models, 2 benchmarks" in page.read_text(encoding="utf-8")


def test_a_complete_cell_is_never_computed_again(engines: Engines, spec: dict[str, Any]) -> None:
    campaign(spec)
    engines.built.clear()
    again = campaign({**spec, "name": "another"})
    assert engines.built == {}
    assert len(again.leaderboard) == 4


def test_one_models_failure_stops_no_other_and_is_named(engines: Engines, spec: dict[str, Any]) -> None:
    def dies(request: Request) -> Response:
        raise EngineDiedError("killed by signal 9")

    engines.scripts["second"] = dies
    with pytest.raises(CampaignFailedError, match="1 of 2 models failed: second: .*killed by signal 9") as caught:
        campaign(spec)
    assert list(caught.value.failures) == ["second"]
    store = open_store(spec["results"])
    assert set(store.scores()["model"]) == {"first"}
    assert store.campaigns()[-1]["failures"].keys() == {"second"}
    assert engines.built["second"].closed


def test_an_interrupted_model_goes_on_where_it_stopped(engines: Engines, spec: dict[str, Any]) -> None:
    spec = {**spec, "models": spec["models"][:1], "benchmarks": BENCHMARKS[1:], "policy": {"engine_restarts": 0}}
    answered: list[str] = []

    def dies_in_the_middle(request: Request) -> Response:
        if len(answered) == LIMIT // 2:
            raise EngineDiedError("gone")
        answered.append(request.id)
        return answer(request)

    engines.scripts["first"] = dies_in_the_middle
    with pytest.raises(CampaignFailedError):
        campaign(spec)
    del engines.scripts["first"]
    campaign(spec)
    again = engines.built["first"].seen
    assert len(answered) + len(again) == LIMIT
    assert not set(answered) & set(again)


def test_a_request_that_failed_is_a_sample_with_its_error(engines: Engines, spec: dict[str, Any]) -> None:
    def fails_once(request: Request) -> Response:
        if request.id.split("/")[-3] == "0":
            return Generated(request.id, "", "error", 0, 0, error="prompt longer than the window")
        return answer(request)

    engines.scripts["first"] = fails_once
    campaign({**spec, "models": spec["models"][:1], "benchmarks": BENCHMARKS[1:]})
    samples = open_store(spec["results"]).samples().sort_values("doc_id")
    assert list(samples["error"].notna()) == [True] + [False] * (LIMIT - 1)


def test_each_failed_cell_is_told_with_its_own_reason(engines: Engines, spec: dict[str, Any], tmp_path: Path) -> None:
    """One cannot be answered, one not scored, one not prepared; the fourth is there all the same."""
    functions = "def results(doc, answers):\n    return {'exact_match': doc['nowhere']}\n"
    own: dict[str, Any] = {**GENERATE, "process_results": Function("mine.results")}
    rows = [{"q": "1?", "gold": -1}]
    benchmarks = [
        write_task(tmp_path, "unlabelled", CHOOSE, rows),
        BENCHMARKS[0],
        BENCHMARKS[1],
        write_task(tmp_path, "fault", own, rows, functions),
    ]

    def refuses(request: Request) -> Response:
        if request.id.startswith("steelyard_facts"):
            return Scored(request.id, 0.0, is_greedy=False, tokens=0, prompt_tokens=0, error="num_beams")
        return answer(request)

    engines.scripts["first"] = refuses
    with pytest.raises(CampaignFailedError) as caught:
        campaign({**spec, "models": spec["models"][:1], "benchmarks": benchmarks})
    told = caught.value.cells["first"]
    assert told.keys() == {"unlabelled", "steelyard_facts", "fault"}
    assert told["steelyard_facts"] == "no request could be served; the first said: num_beams"
    assert told["fault"].endswith("doc 0 of fault: its metrics, after filter 'none': KeyError: 'nowhere'")
    assert "no doc of 'unlabelled' can be answered right" in told["unlabelled"]
    assert all(f"{name}: {reason}" in caught.value.failures["first"] for name, reason in told.items())
    store = open_store(spec["results"])
    parsed = load_spec({**spec, "models": spec["models"][:1], "benchmarks": benchmarks})
    found = {row.benchmark: (row.state, row.detail) for row in statuses(store, "flows", parsed)}
    assert found == {name: ("failed", reason) for name, reason in told.items()} | {
        "steelyard_arithmetic": ("complete", "")
    }
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=2)
    assert all(reason in str(run.state and run.state.message) for run in runs for reason in told.values())


def test_models_running_at_once_hold_different_gpus(engines: Engines, spec: dict[str, Any]) -> None:
    both = threading.Barrier(2, timeout=60)

    def meets(request: Request) -> Response:
        if request.id.endswith("/0/0/0"):  # the first request of a run waits for the other model's
            both.wait()
        return answer(request)

    engines.scripts |= {"first": meets, "second": meets}
    campaign({**spec, "benchmarks": BENCHMARKS[1:]})
    assert sorted(engines.devices.values()) == [(0,), (1,)]


def test_bad_input_is_refused_before_an_engine_is_built(engines: Engines, spec: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="steelyard_fact'.*did you mean 'steelyard_facts'"):
        campaign({**spec, "benchmarks": ["steelyard_fact"]})
    assert engines.built == {}


def test_a_model_that_gives_no_numbers_fails_and_scores_nothing(engines: Engines, spec: dict[str, Any]) -> None:
    """As an engine answers where weights are NaN."""

    def no_numbers(request: Request) -> Response:
        error = "its log-probabilities are not numbers (NaN): the weights are damaged"
        return Scored(request.id, 0.0, is_greedy=False, tokens=0, prompt_tokens=0, error=error)

    engines.scripts["second"] = no_numbers
    facts = [each for each in BENCHMARKS if each["name"] == "steelyard_facts"]
    said = (
        "second: .*steelyard_facts: no request could be served; the first said: its log-probabilities are not numbers"
    )
    with pytest.raises(CampaignFailedError, match=said):
        campaign({**spec, "benchmarks": facts})
    assert set(open_store(spec["results"]).leaderboard()["model"]) == {"first"}


def test_what_ran_when_is_stored_and_shown(engines: Engines, spec: dict[str, Any]) -> None:
    result = campaign(spec)
    found = lanes(open_store(spec["results"]).timeline("flows", result.run))
    assert sorted(lane.label for lane in found) == ["first", "second"]
    for lane in found:
        of_benchmarks = {(span.phase, span.benchmark) for span in lane.spans if span.benchmark}
        assert of_benchmarks == {
            (phase, each["name"]) for phase in ("prepare", "generate", "score", "store") for each in BENCHMARKS
        }
        assert {span.phase for span in lane.spans} >= {"wait", "load", "close"}
        assert 0 < lane.working_seconds < lane.held_seconds
    artifact = cast("Artifact | None", Artifact.get(artifact_key("timeline", "flows")))
    assert artifact is not None
    assert "first" in str(artifact.data)
