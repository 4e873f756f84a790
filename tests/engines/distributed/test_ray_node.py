"""A Ray node of our own that joins a cluster with nothing to run on, as drivers outside Kubernetes' Ray pods need. Ray is real."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines.distributed.cluster import ClusterSpec, attach, token_environment
from engines.distributed.ray_node import start_node
from tests.processes import nothing_left, running

NODES = """
import ray, sys
ray.init(sys.argv[1], logging_level="CRITICAL", log_to_driver=False)
alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
print(len(alive), sum(each.get("GPU", 0) for each in alive), sum("CPU" in each for each in alive))
"""


def nodes(address: str) -> str:
    """Living nodes of the cluster, GPUs in all, and nodes that have CPUs."""
    return subprocess.run(
        [sys.executable, "-c", NODES, address],
        env={**os.environ, **token_environment()},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.strip()


def test_it_joins_with_nothing_to_run_on_and_leaves_nothing(tmp_path: Path) -> None:
    before = running()
    cluster = attach(ClusterSpec((0, 1), 1, "cpu"), "m")  # of two nodes: one of a single node takes no others

    async def join() -> str:
        node = await start_node(
            [f"--address={cluster.address}", "--num-cpus=0", "--num-gpus=0", "--node-ip-address=127.0.0.1"],
            tmp_path / "node.log",
            token_environment(),
        )
        found = await asyncio.to_thread(nodes, cluster.address)
        await node.end()
        return found

    assert asyncio.run(join()) == "3 2.0 2"
    cluster.leave(0)
    assert nothing_left(before)


def test_one_that_does_not_start_is_named_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="exited with status 2 .*No such option '--no-such-option'"):
        asyncio.run(start_node(["--no-such-option"], tmp_path / "node.log", token_environment()))
