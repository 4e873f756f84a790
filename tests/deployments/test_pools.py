"""A campaign through work pools, all real: server, workers, vLLM. Cancelled in the middle, it goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from core.campaign import load_spec
from core.monitor.summary import engines_alive
from core.results import open_store
from core.storage.open import open_storage
from core.store.monitor import read_monitor
from deployments.deploy import deploy
from tests import models
from tests.deployments.prefect_server import PrefectServer, prefect_server, worker
from tests.processes import running, started_since

LIMIT = 24


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as started:
        yield started


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    """Answers that are long enough to be caught in the middle."""
    checkpoint = str(models.smollm2(models.cache_directory(tmp_path)))
    asked = {"name": "steelyard_arithmetic", "limit": LIMIT}
    return {
        "name": "pools",
        "models": [{"model": checkpoint, "name": "small", "max_model_len": 1000}],
        "benchmarks": [{**asked, "sampling": {"max_tokens": 250, "until": ["never said"]}}],
        "fleet": {"gpus": 1, "gpu_memory_gb": 4, "device": "cpu"},
        "results": str(tmp_path / "results"),
        "monitor_seconds": 1,
        "dispatch": "work_pools",
    }


def runs() -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs()


def states() -> dict[str, str]:
    """State of the newest run of each flow."""
    newest = sorted(runs(), key=lambda run: str(run.created))
    return {"child" if run.parent_task_run_id else "campaign": run.state_name or "" for run in newest}


def trigger() -> UUID:
    """Start a run as the UI does. Returns its id."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("campaign/pools")
        return client.create_flow_run_from_deployment(deployment.id).id


def await_(what: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.3)
    return found


def engines(before: dict[int, psutil.Process]) -> list[psutil.Process]:
    return [each for each in started_since(before) if "engines.process.lightweight_process" in each.cmdline()]


@pytest.mark.vllm
@pytest.mark.slow
def test_a_campaign_on_pools_is_cancelled_in_the_middle_and_resumes(
    server: PrefectServer, spec: dict[str, Any], tmp_path: Path
) -> None:
    deploy([load_spec(spec)])
    store, before = open_store(spec["results"]), running()
    responses = Path(spec["results"]) / "responses"
    with (
        worker(server, "campaign", tmp_path / "campaign.log"),
        worker(server, "gpu", tmp_path / "gpu.log", "--limit", "2"),
    ):
        first = trigger()
        await_(lambda: engines(before), 90)
        await_(lambda: any("progress" in name for name in artifact_keys()), 120)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(first, Cancelling())
        cancelled = time.monotonic()
        await_(lambda: not engines(before), 30)
        assert time.monotonic() - cancelled < 30
        await_(lambda: states() == {"campaign": "Cancelled", "child": "Cancelled"}, 60)
        assert list(responses.rglob("*.parquet")), "nothing answered was kept"

        trigger()
        await_(lambda: states()["campaign"] in ("Completed", "Failed", "Crashed"), 150)
        assert states() == {"campaign": "Completed", "child": "Completed"}
        assert {run.name for run in runs() if run.parent_task_run_id} == {"small · lightweight"}

    samples = store.samples("pools")
    assert len(samples) == LIMIT
    assert not samples.duplicated("doc_id").any()
    (record,) = store.commit_records().values()
    assert 0 < record["metadata"]["resumed"] < LIMIT
    assert record["metadata"]["monitor"]["generation_tokens_per_second"] > 0
    alive = engines_alive(read_monitor(open_storage(spec["results"]), "pools"))
    assert alive.most == 1


@pytest.mark.vllm
@pytest.mark.slow
def test_a_model_whose_process_is_lost_is_handed_over_again_and_goes_on(
    server: PrefectServer, spec: dict[str, Any], tmp_path: Path
) -> None:
    deploy([load_spec(spec)])
    before = running()
    with (
        worker(server, "campaign", tmp_path / "campaign.log"),
        worker(server, "gpu", tmp_path / "gpu.log", "--limit", "2"),
    ):
        known = {run.id for run in runs()}
        trigger()
        (engine, *_) = await_(lambda: engines(before), 90)
        parent = engine.parent()
        assert parent is not None
        parent.kill()
        await_(lambda: states()["campaign"] in ("Completed", "Failed", "Crashed"), 240)
        assert states()["campaign"] == "Completed"
        children = [run.state_name for run in runs() if run.id not in known and run.parent_task_run_id]
        assert sorted(map(str, children)) == ["Completed", "Crashed"]

    samples = open_store(spec["results"]).samples("pools")
    assert len(samples) == LIMIT
    assert not samples.duplicated("doc_id").any()


def artifact_keys() -> list[str]:
    with get_client(sync_client=True) as client:
        return [artifact.key or "" for artifact in client.read_artifacts(limit=None)]
