"""A campaign whose S3 server goes away in the middle. The engine is scripted, the server is killed for real."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.request import Request, Response
from core.results import open_store
from core.storage.open import open_storage
from core.store.spool import upload
from deployments.local_s3 import local_s3
from flows.campaign import CampaignFailedError, campaign
from tests.checkpoints import write_checkpoint
from tests.flows.scripted import Engines, answer
from tests.s3_outage import Outage, outages

pytestmark = pytest.mark.s3

LIMIT = 40
OUTAGE_SECONDS = float(os.environ.get("STEELYARD_TEST_OUTAGE", "8"))


@pytest.fixture
def outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outage]:
    with local_s3(tmp_path / "s3") as server, outages(server) as outage:
        server.create_bucket("evals")
        for key in [key for key in os.environ if key.startswith("AWS_")]:
            monkeypatch.delenv(key)
        for key, value in server.env.items():
            monkeypatch.setenv(key, value)
        yield outage


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("flows.cells.IMPORT_SECONDS", 0.0)
    return {
        "name": "outage",
        "models": [str(write_checkpoint(tmp_path / "model", 0))],
        "benchmarks": [{"name": "steelyard_arithmetic", "limit": LIMIT}, {"name": "steelyard_facts", "limit": LIMIT}],
        "fleet": {"gpus": 1, "gpu_memory_gb": 8, "device": "cpu"},
        "results": "s3://evals/outage",
        "policy": {"spool": str(tmp_path / "spools"), "store_patience_seconds": 300},
    }


def goes_away(outage: Outage, asked: Counter[str], then: Callable[[], object]) -> Callable[[Request], Response]:
    """Kill the server in the middle of the answers, and call ``then`` in another thread."""
    lock = threading.Lock()

    def answers(request: Request) -> Response:
        with lock:
            asked[request.id] += 1
            if asked.total() == LIMIT:
                outage.begin()
                threading.Thread(target=then).start()
        return answer(request)

    return answers


def test_a_campaign_outlives_an_outage_with_every_row_there(
    engines: Engines, outage: Outage, spec: dict[str, Any], tmp_path: Path
) -> None:
    def comes_back() -> None:
        threading.Event().wait(OUTAGE_SECONDS)
        outage.end()

    asked: Counter[str] = Counter()
    engines.scripts["model"] = goes_away(outage, asked, comes_back)
    result = campaign(spec)
    assert list(result.leaderboard["docs"]) == [LIMIT, LIMIT]
    samples = open_store(spec["results"]).samples()
    assert len(samples) == 2 * LIMIT
    assert samples["error"].isna().all()
    assert not samples.duplicated(["fingerprint", "task", "doc_id"]).any()
    assert set(asked.values()) == {1}
    storage = open_storage(spec["results"])
    assert storage.list("responses") == storage.list("leases") == storage.list("holders") == []
    assert list(Path(spec["policy"]["spool"]).glob("*")) == []


@pytest.mark.slow
def test_where_the_store_stays_away_the_campaign_ends_with_the_spools_path_and_nothing_is_asked_twice(
    engines: Engines, outage: Outage, spec: dict[str, Any]
) -> None:
    spec["policy"]["store_patience_seconds"] = 5
    asked: Counter[str] = Counter()
    engines.scripts["model"] = goes_away(outage, asked, lambda: None)
    with pytest.raises(CampaignFailedError, match="answers that it did not take are in .*steelyard upload") as caught:
        campaign(spec)
    assert "\n" not in caught.value.failures["model"]
    (folder,) = Path(spec["policy"]["spool"]).iterdir()
    assert str(folder) in caught.value.failures["model"]
    outage.end()
    assert upload(folder) > 0
    campaign(spec)
    assert set(asked.values()) == {1}
    assert len(open_store(spec["results"]).samples()) == 2 * LIMIT
