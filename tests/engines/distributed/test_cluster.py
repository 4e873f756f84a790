"""Local Ray clusters: found, shared, kept, ended. Ray is real; no model is loaded."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from core.errors import UserError
from deployments.cli import app
from engines.distributed import runtime
from engines.distributed.cluster import (
    Cluster,
    ClusterSpec,
    attach,
    check_address,
    end_unused,
    local_clusters,
    local_spec,
    stop_all,
)
from engines.distributed.runtime import LocalSpec
from engines.host.folder import runtime_folder
from tests.processes import gone, killed_at_the_end, nothing_left, running, started_since

ONE = ClusterSpec((0,), 2, "cpu")
OTHER = ClusterSpec((1,), 2, "cpu")


@pytest.fixture
def before() -> Iterator[dict[int, psutil.Process]]:
    """Processes before the test; none that it started is left after it."""
    found = running()
    yield found
    stop_all()
    assert nothing_left(found)


def answers(cluster: Cluster) -> bool:
    check_address(cluster.address)
    return True


def test_ends_with_its_last_client_at_idle_time_zero(before: dict[int, psutil.Process]) -> None:
    first, second = attach(ONE, "m"), attach(ONE, "m")
    assert first.address == second.address
    first.leave(0)
    assert answers(second)
    second.leave(0)
    assert nothing_left(before)


def test_is_kept_and_found_again(before: dict[int, psutil.Process]) -> None:
    cluster = attach(ONE, "some-model")
    cluster.leave(600)
    (found,) = local_clusters()
    assert (found.address, found.devices, found.clients, found.models) == (cluster.address, ("0",), 0, ("some-model",))
    again = attach(ONE, "another")
    assert again.address == cluster.address
    again.leave(600)
    listed = CliRunner().invoke(app, ["services", "list"]).output
    assert "devices 0  unused  another, some-model" in listed
    assert CliRunner().invoke(app, ["services", "stop"]).output == "stopped 1\n"
    assert nothing_left(before)
    assert CliRunner().invoke(app, ["services", "list"]).output == "none\n"


def test_a_killed_keeper_takes_its_cluster_along(before: dict[int, psutil.Process]) -> None:
    cluster = attach(ONE, "m")
    started = started_since(before)
    (keeper,) = [process for process in started if "engines.distributed.cluster_daemon" in process.cmdline()]
    keeper.kill()
    assert gone(started, 60)
    cluster.leave(0)
    assert local_clusters() == []
    again = attach(ONE, "m")
    assert answers(again)
    again.leave(0)


def test_a_killed_client_takes_its_cluster_along(before: dict[int, psutil.Process]) -> None:
    script = """
import sys
from engines.distributed.cluster import ClusterSpec, attach
attach(ClusterSpec((0,), 2, "cpu"), "m")
print("attached", flush=True)
sys.stdin.read()
"""
    with killed_at_the_end(script) as said:
        assert said == "attached\n"
        started = started_since(before)
    assert len(started) > 3
    assert gone(started, 60)
    assert nothing_left(before)


def test_unused_clusters_make_room_and_used_ones_do_not(before: dict[int, psutil.Process]) -> None:
    unused, used = attach(ONE, "m"), attach(OTHER, "m")
    unused.leave(600)
    end_unused("cpu", ("0", "1"))
    assert [cluster.devices for cluster in local_clusters()] == [("1",)]
    used.leave(0)


def test_only_its_user_can_drive_it(before: dict[int, psutil.Process]) -> None:
    cluster = attach(ONE, "m")
    assert stat.S_IMODE(runtime.token_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(runtime_folder().stat().st_mode) == 0o700
    code = f"import ray; ray.init({cluster.address!r}, logging_level='CRITICAL'); print('in')"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    outsider = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **local_spec(ONE, {}).environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert outsider.returncode != 0
    assert "in" not in outsider.stdout.split()
    processes = started_since(before)
    listening = [
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert all(ip_address(ip.removeprefix("::ffff:")).is_loopback for ip in listening)
    sockets = {Path(str(connection.laddr)) for each in processes for connection in each.net_connections("unix")}
    made = [path for path in sockets if path.is_absolute()]
    assert made
    assert all(any(not part.stat().st_mode & 0o077 for part in path.parents) for path in made)
    cluster.leave(0)


@pytest.mark.parametrize("address", ["somewhere", "host:", ":6379", "host:port"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="fleet.ray_address = .*not host:port"):
        check_address(address)


def test_an_address_that_does_not_answer_is_refused() -> None:
    with pytest.raises(UserError, match=r"fleet.ray_address = '127.0.0.1:1': no answer \(Connection refused\)"):
        check_address("127.0.0.1:1")


def test_logical_nodes_become_ray_nodes() -> None:
    assert local_spec(ClusterSpec((1, 2, 3), 2, "cpu"), {}) == LocalSpec("cpu", (("1",), ("2", "3")))


def test_gpus_count_within_the_visible_ones() -> None:
    spec = local_spec(ClusterSpec((0, 1), 4, "cuda"), {"CUDA_VISIBLE_DEVICES": "3,5"})
    assert spec == LocalSpec("cuda", (("3", "5"),))
    assert spec.key == "cuda-3-5"


def test_gpus_of_other_machines_need_an_address() -> None:
    with pytest.raises(UserError, match=r"fleet.ray_address: needed"):
        local_spec(ClusterSpec((3, 4), 4, "cuda"), {})


def test_long_keys_stay_short_and_differ() -> None:
    many = [LocalSpec("cuda", (tuple(f"GPU-{n + shift:032d}" for n in range(8)),)) for shift in (0, 1)]
    assert all(len(spec.key) <= 24 for spec in many)
    assert many[0].key != many[1].key


def test_a_runtime_directory_that_is_not_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    monkeypatch.setenv("STEELYARD_RUNTIME", str(tmp_path / "link"))
    with pytest.raises(UserError, match="not a directory of yours"):
        runtime_folder()
    monkeypatch.setenv("STEELYARD_RUNTIME", str(tmp_path / ("long" * 30)))
    with pytest.raises(UserError, match="too long"):
        runtime_folder()
