"""The temporary Prefect server of a campaign: slow to start, and left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import yaml
from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, temporary_settings

from flows.prefect_server import startup_seconds
from tests.checkpoints import write_checkpoint
from tests.processes import gone

STARTS = """
import sys
from flows.prefect_server import TemporaryServer
server = TemporaryServer()
server.start(timeout=120)
print(server.server_process.pid, flush=True)
sys.stdin.read()
"""


def test_it_ends_with_a_campaign_that_is_killed(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    with subprocess.Popen(
        [sys.executable, "-c", STARTS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
    ) as campaign:
        assert campaign.stdout is not None
        server = psutil.Process(int(campaign.stdout.readline()))
        assert server.is_running()
        campaign.send_signal(signal.SIGKILL)
    assert gone([server], 20)


def test_it_is_waited_for_two_minutes_or_as_long_as_people_say() -> None:
    assert startup_seconds() >= 120
    with temporary_settings({PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 7}):
        assert startup_seconds() == 7


def test_one_that_is_too_slow_is_one_line_that_names_the_mend(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "tiny")
    spec = {"name": "slow", "models": [{"model": "tiny"}], "benchmarks": ["steelyard_facts"], "results": "results"}
    (tmp_path / "slow.yaml").write_text(yaml.safe_dump({**spec, "fleet": {"device": "cpu"}}))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", "from deployments.cli import main; main()", "run", "slow.yaml"],
        cwd=tmp_path,
        env={
            **environment,
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (told,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS" in told
    assert "PREFECT_API_URL" in told
