"""Secrets of the environment are nowhere in what a campaign leaves: store, Prefect's database, logs, terminal, process titles."""

from __future__ import annotations

import logging
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from prefect.settings import get_current_settings

from core.errors import EngineDiedError, UserError
from core.request import Generated, Request, Response
from core.results import open_store
from deployments import cli
from flows.campaign import CampaignFailedError, campaign
from tests.flows.scripted import Engines, answer
from tests.prefect_events import drain

PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret-QxV7",
    "HF_TOKEN": "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",
    "PREFECT_API_KEY": "pnu_plantedPrefectKeyPlantedPrefectKeyPl",
    "OUR_DB_PASSWORD": "planted-db-password-kJ2w",
}
LOGIN = "planted-login-8rTz"
ENDPOINT = f"http://someone:{LOGIN}@127.0.0.1:9"
NEEDLES = (*PLANTED.values(), LOGIN)


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", ENDPOINT)


def leaky(request: Request) -> Response:
    """An engine whose words, and a library whose logs, hold what they should not."""
    log = logging.getLogger("some.library")
    log.error("sent %s to %s", PLANTED["AWS_SECRET_ACCESS_KEY"], ENDPOINT)
    if request.id.split("/")[1] == "0":
        error = f"refused {PLANTED['HF_TOKEN']} at {ENDPOINT}"
        return Generated(request.id, "", "error", 0, 0, error=error)
    return answer(request)


def dying(request: Request) -> Response:
    raise EngineDiedError(f"no {PLANTED['OUR_DB_PASSWORD']}, no {PLANTED['PREFECT_API_KEY']}: {ENDPOINT}")


def stored(root: Path) -> Iterator[tuple[str, str]]:
    """Everything in a results store, Parquet as its values and metadata."""
    for path in root.rglob("*"):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield path.name, f"{table.to_pylist()} {table.schema.metadata}"
        elif path.is_file():
            yield path.name, path.read_text()


def in_prefect() -> Iterator[tuple[str, str]]:
    """Every row of the database of Prefect's server: parameters, states, logs, artifacts, events."""
    drain()
    url = get_current_settings().server.database.connection_url
    assert url is not None
    with sqlite3.connect(url.get_secret_value().partition("///")[2]) as database:
        for (table,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
            for row in database.execute(f'select * from "{table}"'):  # of its own tables
                yield table, str(row)


def test_what_a_campaign_leaves_holds_no_secret(
    engines: Engines,
    spec: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = {**spec, "benchmarks": [{"name": "steelyard_arithmetic", "limit": 3}], "policy": {"engine_restarts": 0}}
    engines.scripts.update(first=leaky, second=dying)
    with pytest.raises(CampaignFailedError) as caught:
        campaign(spec)
    store = open_store(spec["results"])
    monkeypatch.setattr(sys, "argv", ["steelyard", "results", spec["results"], "--format", "markdown"])
    with pytest.raises(SystemExit):
        cli.main()

    left = [*stored(Path(spec["results"])), *in_prefect(), ("logs", caplog.text), ("error", str(caught.value))]
    left += [("titles", " ".join(process.info["cmdline"] or ())) for process in psutil.process_iter(["cmdline"])]
    left += [("terminal", "\n".join(capfd.readouterr()))]
    assert [(where, needle) for where, text in left for needle in NEEDLES if needle in text] == []

    # The secrets were on their way, and everything was looked at.
    failed = store.samples()["error"].dropna()
    assert list(failed) == ["refused *** at http://***@127.0.0.1:9"]
    assert caught.value.failures == {"second": "steelyard_arithmetic: no ***, no ***: http://***@127.0.0.1:9"}
    assert "sent *** to http://***@127.0.0.1:9" in caplog.text
    assert {"flow_run", "task_run_state", "log", "artifact", "events"} <= {where for where, _ in left}
    for where in ("flow_run_state", "log", "artifact"):
        assert any(where == table and "no ***, no ***" in text for table, text in left), where


def test_a_spec_that_holds_one_reaches_nothing(
    engines: Engines,
    spec: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "c.yaml").write_text(
        yaml.safe_dump({**spec, "name": "secretive", "results": f"s3://k:{LOGIN}@bucket/p"})
    )
    monkeypatch.setattr(sys, "argv", ["steelyard", "run", str(tmp_path / "c.yaml")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capfd.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
    assert "results holds a user and a password" in err
    assert LOGIN not in err
    assert not [row for _, row in in_prefect() if LOGIN in row or "secretive" in row]


def test_nor_does_one_from_python(engines: Engines, spec: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="results holds a user and a password"):
        campaign({**spec, "name": "secretive", "results": f"s3://k:{LOGIN}@bucket/p"})
    with pytest.raises(UserError, match="results holds a user and a password"):
        campaign(spec={**spec, "name": "secretive", "results": f"s3://k:{LOGIN}@bucket/p"})
    assert engines.built == {}
    assert not [row for _, row in in_prefect() if LOGIN in row or "secretive" in row]
