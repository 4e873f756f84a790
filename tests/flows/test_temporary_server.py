"""The temporary Prefect server of a campaign that is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

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
