"""What every test may use. Nothing here reaches a network beyond loopback."""

from __future__ import annotations

import gc
import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from deployments.local_s3 import S3Server, local_s3
from engines.distributed.cluster import stop_all
from tests import models

os.environ.update(
    HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", PREFECT_SERVER_ANALYTICS_ENABLED="false"
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # under nohup; what is started here would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("steelyard", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("steelyard")

BUCKET = "steelyard-tests"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with real engines come first, those of one folder in one worker: they are compared with the same.

    What starts Ray elsewhere names the group of ``engines/distributed``: memory is there for one cluster with a model.
    """
    marks = ((item.path, item.get_closest_marker) for item in items)
    first = {path for path, mark in marks if mark("vllm") and not mark("slow")}
    for item in items:
        if item.path in first and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.parent.name))
    items.sort(key=lambda item: item.path not in first)


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking through it takes a second, and statsmodels has it done at each correction."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    """At the interpreter's end, vLLM's libraries count what is left."""
    gc.unfreeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadgroup``, what is in no group goes to a worker file by file."""
    from xdist.scheduler import LoadGroupScheduling

    class ByGroupOrFile(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            group = super()._split_scope(nodeid)
            return nodeid.partition("::")[0] if group == nodeid else group

    return ByGroupOrFile(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(scope="session", autouse=True)
def runtime_directory() -> Iterator[None]:
    """Local clusters of the tests are found in a directory of their own, and have ended when the session ends."""
    with tempfile.TemporaryDirectory(prefix="sy-") as path:  # short: sockets lie in it
        os.environ["STEELYARD_RUNTIME"] = path
        yield
        stop_all()


@pytest.fixture(scope="session", autouse=True)
def checkpoint_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Checkpoints are made once for all workers: SmolLM2 takes half a minute."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["STEELYARD_TEST_CACHE"] = str(models.cache_directory(shared / "checkpoints"))


@pytest.fixture(scope="session")
def prefect_harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The temporary server that campaigns start by themselves, with a database of its own, once a session."""
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL, temporary_settings

    from flows.prefect_server import TemporaryServer
    from tests.prefect_events import drain

    database = tmp_path_factory.mktemp("prefect-database") / "prefect.db"
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{database}"}):
        server = TemporaryServer()
        server.start(timeout=120)
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            yield
            drain()
        server.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole session, with one bucket."""
    with local_s3(tmp_path_factory.mktemp("s3")) as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture
def s3_root(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of an empty prefix, with the AWS variables set to reach it."""
    for key in [key for key in os.environ if key.startswith("AWS_")]:
        monkeypatch.delenv(key)
    for key, value in s3_server.env.items():
        monkeypatch.setenv(key, value)
    return f"s3://{BUCKET}/{secrets.token_hex(8)}"
