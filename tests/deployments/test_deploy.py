"""`steelyard deploy` and `steelyard worker` against a real Prefect server and a real worker."""

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events import emit_event
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from core.campaign import CampaignSpec, load_spec
from core.errors import UserError
from deployments import cli
from deployments.automations import SCORE_DROPPED
from deployments.deploy import deploy
from deployments.server import without_login
from deployments.worker import POOLS as WORKER_POOLS
from deployments.worker import check_pool, default_limit, run_worker
from flows.dispatch import POOLS, live_workers, no_worker_message
from tests.checkpoints import write_checkpoint
from tests.deployments.prefect_server import PrefectServer, prefect_server, worker

README_SPEC = {
    "name": "nightly",
    "models": [
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        {"model": "/data/llama-70b", "name": "llama-70b", "engine": "distributed", "tensor_parallel": 4},
    ],
    "benchmarks": ["gsm8k", {"name": "mmlu", "num_fewshot": 5, "limit": 200}, "/tasks/own.yaml"],
    "fleet": {"nodes": 1, "gpus": 8, "gpu_memory_gb": 80},
    "results": "s3://evals/nightly",
}
CRON = {"cron": "0 2 * * *", "timezone": "Europe/Berlin"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """A client of the server, where `steelyard deploy` has run before and the pool ``ray`` is somebody's own."""
    with get_client(sync_client=True) as opened:
        opened.create_work_pool(WorkPoolCreate(name="ray", type="kubernetes", description="ours"))
        deploy()
        yield opened


@pytest.fixture(scope="module")
def inbox(client: SyncPrefectClient) -> Iterator[list[dict[str, str]]]:
    """What a notification block named ``custom-webhook/team`` has sent."""
    received: list[dict[str, str]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        block = CustomWebhookNotificationBlock(
            name="team",
            url=f"http://127.0.0.1:{listening.server_port}/",
            json_data={"subject": "{{subject}}", "body": "{{body}}"},
            headers=None,
            cookies=None,
        )
        block.save("team", overwrite=True)
        deploy(alerts=True, notify="custom-webhook/team")
        yield received
        listening.shutdown()


def nightly(*schedules: dict[str, Any]) -> CampaignSpec:
    return load_spec({**README_SPEC, "schedules": list(schedules)})


def state(client: SyncPrefectClient) -> dict[str, tuple[str, list[tuple[str, bool]]]]:
    """Every deployment's id, and its schedules' ids with whether they are in force."""
    return {
        entry.name: (str(entry.id), sorted((str(schedule.id), schedule.active) for schedule in entry.schedules))
        for entry in client.read_deployments()
    }


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def test_deploying_twice_doubles_nothing(client: SyncPrefectClient) -> None:
    deploy([nightly(CRON, {"interval_seconds": 3600})])
    first, automations = state(client), {automation.name: automation.id for automation in client.read_automations()}
    registered = deploy([nightly(CRON, {"interval_seconds": 3600})])
    assert state(client) == first
    assert {automation.name: automation.id for automation in client.read_automations()} == automations
    assert "steelyard: run without heartbeat" in automations
    assert set(first) == {"campaign", "rescore", "gpu", "ray", "nightly"}
    assert len(first["nightly"][1]) == 2
    assert [(entry.name, entry.pool) for entry in registered] == [
        ("campaign/campaign", "campaign"),
        ("rescore/rescore", "campaign"),
        ("evaluate-model/gpu", "gpu"),
        ("evaluate-model/ray", "ray"),
        ("campaign/nightly", "campaign"),
    ]


def test_schedules_that_the_spec_no_longer_has_are_removed(client: SyncPrefectClient) -> None:
    deploy([nightly(CRON, {"interval_seconds": 3600})])
    kept = state(client)["nightly"][1]
    deploy([nightly({**CRON, "active": False})])
    [left] = state(client)["nightly"][1]
    assert (left[0], True) in kept
    assert left[1] is False
    deploy([nightly()])
    assert state(client)["nightly"][1] == []


def test_a_rule_that_cannot_be_followed_is_refused_before_anything_is_registered(client: SyncPrefectClient) -> None:
    before = state(client)
    for schedule, words in (
        ({"cron": "0 25 * * *"}, r"campaign 'other': schedules\[0\].cron = '0 25 \* \* \*': .*use five fields"),
        ({"cron": "0 0 2 * * *"}, "more than five fields"),
        ({"cron": "0 0 30 2 *"}, "next date"),
        ({"rrule": "FREQ=SOMETIMES"}, r"schedules\[0\].rrule = 'FREQ=SOMETIMES': .*RFC 5545"),
        ({"rrule": "FREQ=DAILY;UNTIL=20210101T000000"}, "no date to come"),
    ):
        with pytest.raises(UserError, match=words) as refused:
            deploy([load_spec({**README_SPEC, "name": "other", "schedules": [schedule]})])
        assert "\n" not in str(refused.value)
    assert state(client) == before


def test_names_that_would_overwrite_each_other_are_refused(client: SyncPrefectClient) -> None:
    with pytest.raises(UserError, match="2 specs have it"):
        deploy([nightly(), nightly(CRON)])
    with pytest.raises(UserError, match="takes any spec"):
        deploy([load_spec({**README_SPEC, "name": "campaign"})])


def test_a_pool_of_another_type_is_left_alone_and_needs_another_worker(client: SyncPrefectClient) -> None:
    pool = client.read_work_pool("ray")
    assert (pool.type, pool.description) == ("kubernetes", "ours")
    with pytest.raises(UserError, match="prefect worker start --pool ray"):
        check_pool("ray")


def test_a_pool_that_is_missing_is_named_by_the_worker_and_made_by_deploy(client: SyncPrefectClient) -> None:
    client.delete_work_pool("gpu")
    with pytest.raises(UserError, match="work pool 'gpu' does not exist: run steelyard deploy first"):
        check_pool("gpu")
    deploy()
    assert client.read_work_pool("gpu").type == "process"
    assert client.read_deployment_by_name("evaluate-model/gpu").work_pool_name == "gpu"


def test_the_form_refuses_a_wrong_spec_and_the_api_takes_the_readmes(client: SyncPrefectClient) -> None:
    deployment = client.read_deployment_by_name("campaign/campaign").id
    run = client.create_flow_run_from_deployment(deployment, parameters={"spec": README_SPEC})
    client.delete_flow_run(run.id)
    filled = {**README_SPEC, "models": [{"model": "/data/m"}], "benchmarks": [{"name": "gsm8k"}]}

    def submit(**changes: Any) -> None:
        asked = {"parameters": {"spec": {**filled, **changes}}, "enforce_parameter_schema": True}  # as the form does
        client._client.post(f"/deployments/{deployment}/create_flow_run", json=asked)

    submit()
    for wrong in (dict[str, Any](modles=[]), {"dispatch": "nowhere"}, {"seed": "x"}):
        with pytest.raises(PrefectHTTPStatusError, match=next(iter(wrong))):
            submit(**wrong)


def test_the_form_keeps_the_order_of_the_spec(client: SyncPrefectClient) -> None:
    schema = client.read_deployment_by_name("campaign/campaign").parameter_openapi_schema or {}
    places = {name: field["position"] for name, field in schema["definitions"]["CampaignSpec"]["properties"].items()}
    assert sorted(places, key=lambda name: places[name]) == list(CampaignSpec.model_fields)


def test_every_field_of_the_form_has_a_title_and_a_description(client: SyncPrefectClient) -> None:
    schema = client.read_deployment_by_name("campaign/campaign").parameter_openapi_schema or {}
    for name, part in schema["definitions"].items():
        for field, shown in part["properties"].items():
            assert shown.get("description"), f"{name}.{field}"


def test_alerts_reach_the_block_for_a_dropped_score(inbox: list[dict[str, str]], client: SyncPrefectClient) -> None:
    deploy(alerts=True, notify="custom-webhook/team")
    names = [automation.name for automation in client.read_automations()]
    assert sorted(names) == sorted(set(names))
    assert {"steelyard: campaign failed", "steelyard: score dropped"} <= set(names)
    emit_event(
        SCORE_DROPPED,
        resource={
            "prefect.resource.id": "steelyard.campaign.nightly",
            "model": "llama-70b",
            "benchmark": "gsm8k",
            "before": "0.81",
            "after": "0.74",
        },
    )
    dropped = wait_for(lambda: [note for note in inbox if note["subject"].startswith("Score dropped")], 60)
    assert [note["subject"] for note in dropped] == ["Score dropped: llama-70b on gsm8k"]
    assert "went from 0.81 to 0.74" in dropped[0]["body"]


def test_alerts_need_a_notification_block(client: SyncPrefectClient) -> None:
    for alerts, notify, words in (
        (True, None, "make one in the UI under Blocks"),
        (True, "slack-webhook/nobody", "no such block"),
        (True, "slack-webhook", "use type/name"),
        (False, "slack-webhook/team", "goes with --alerts"),
    ):
        with pytest.raises(UserError, match=words):
            deploy(alerts=alerts, notify=notify)


def test_a_worker_runs_a_campaign_and_is_missed_when_killed(
    server: PrefectServer, client: SyncPrefectClient, inbox: list[dict[str, str]], tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    bad = {"name": "bad", "models": [str(checkpoint)], "benchmarks": ["steelyard_fact"], "results": str(tmp_path)}
    with worker(server, "campaign", tmp_path / "worker.log", "--name", "ours") as process:
        assert wait_for(lambda: live_workers(client, "campaign"), 30) == ["ours"], (tmp_path / "worker.log").read_text()
        deployment = client.read_deployment_by_name("campaign/campaign").id
        run = client.create_flow_run_from_deployment(deployment, parameters={"spec": bad})
        ended = wait_for(lambda: (seen := client.read_flow_run(run.id)).state and seen.state.is_final() and seen, 60)
        assert ended, (tmp_path / "worker.log").read_text()
        assert ended.name == "bad"
        assert ended.state.name == "Failed"
        assert "benchmark 'steelyard_fact' is not known — did you mean 'steelyard_facts'?" in ended.state.message
        assert "\n" not in ended.state.message
        [failed] = wait_for(lambda: [note for note in inbox if note["subject"] == "Campaign bad: Failed"], 20)
        assert "did you mean 'steelyard_facts'" in failed["body"]
        process.send_signal(signal.SIGKILL)
        assert wait_for(lambda: not live_workers(client, "campaign"), 10)
    assert no_worker_message("gpu") == "work pool `gpu` has no live worker: start one with `steelyard worker gpu`"


def test_a_worker_ends_in_order_on_sigterm(server: PrefectServer, client: SyncPrefectClient, tmp_path: Path) -> None:
    with worker(server, "gpu", tmp_path / "worker.log") as process:
        assert wait_for(lambda: live_workers(client, "gpu"), 30), (tmp_path / "worker.log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert "stopped" in (tmp_path / "worker.log").read_text()


def test_worker_refuses_a_pool_that_is_not_ours() -> None:
    with pytest.raises(UserError, match="'gpus'.*did you mean 'gpu'"):
        run_worker("gpus")
    with pytest.raises(UserError, match="worker's name"):
        run_worker("gpu", name="a/b")
    assert POOLS == WORKER_POOLS
    assert [default_limit(pool) > 0 for pool in POOLS] == [True, True, True]


def test_without_a_server_the_command_line_says_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "nightly.yaml"
    path.write_text(yaml.safe_dump(README_SPEC))
    monkeypatch.setattr(sys, "argv", ["steelyard", "deploy", str(path)])
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "PREFECT_API_URL=http://127.0.0.1:4200/api" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    started = time.monotonic()
    with (
        temporary_settings(updates={PREFECT_API_URL: "http://me:secret@127.0.0.1:9/api"}),
        pytest.raises(UserError, match="http://127.0.0.1:9/api does not answer") as refused,
    ):
        deploy()
    assert "secret" not in str(refused.value)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        with temporary_settings(updates={PREFECT_API_URL: url}), pytest.raises(UserError, match="ReadTimeout"):
            deploy()
    assert time.monotonic() - started < 20
    assert without_login("https://a:b@prefect.example:8443/api") == "https://prefect.example:8443/api"
