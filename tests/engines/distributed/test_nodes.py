"""A model on a Ray cluster whose nodes have disks of their own. Ray, vLLM and S3 are real; the second disk is a mount."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import fsspec
import pytest

from core.errors import UserError
from core.model.checkpoint import read_checkpoint
from core.model.weights import fetch_checkpoint
from deployments.local_s3 import S3Server
from engines.distributed.cluster import ClusterSpec
from engines.distributed.engine import DistributedEngine
from engines.distributed.ray_node import STARTED, free_port
from engines.engine import EngineConfig
from engines.session.cpu_platform import ASKED_BY
from tests.checkpoints import write_checkpoint
from tests.engines import contract
from tests.engines.conftest import WINDOW

# `sh` mounts $1 where the others see $2, and becomes the rest.
ELSEWHERE = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" "$2" && shift 2 && exec "$@"', "sh"]
ELSEWHERE_WORKS = not subprocess.run(
    ["sh", "-c", "unshare --mount mount --bind / /"], check=False, capture_output=True
).returncode

WITHOUT_TOKENS = {"RAY_AUTH_MODE": "disabled"}  # or Ray goes by whether this user has a token in ~/.ray
MUCH = 100_000_000  # bytes; less than the weights, and more than the rest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.s3,
    pytest.mark.skipif(not ELSEWHERE_WORKS, reason="nobody here may give a process mounts of its own"),
]


@dataclass(frozen=True)
class Disks:
    """A cluster at ``address``. What its first node, and this process, have at ``ours``, its second has at ``theirs``."""

    address: str
    ours: Path
    theirs: Path


@contextmanager
def node(arguments: list[str], environment: dict[str, str], around: list[str]) -> Iterator[None]:
    """A Ray node with one logical GPU, started by the command ``around``."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    common = ["--node-ip-address=127.0.0.1", "--num-gpus=1", f"--ray-client-server-port={free_port()}"]
    command = [sys.executable, "-m", "engines.process.guard", *around, *ray, *common, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert any(STARTED in line for line in process.stdout)
        yield
        process.communicate()  # the end of its input is the end of the node


@pytest.fixture(scope="module")
def disks(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    ours, theirs = tmp_path_factory.mktemp("ours"), tmp_path_factory.mktemp("theirs")
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="sy-ray-", dir="/tmp") as temporary, ExitStack() as nodes:
        own = {ASKED_BY: "1", "STEELYARD_CACHE": str(ours), "VLLM_RPC_BASE_PATH": temporary}
        environment = {**os.environ, **s3_server.env, **own, **WITHOUT_TOKENS}
        head = ["--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false"]
        nodes.enter_context(node([*head, f"--temp-dir={temporary}"], environment, []))
        nodes.enter_context(node([f"--address={address}"], environment, [*ELSEWHERE, str(theirs), str(ours)]))
        yield Disks(address, ours, theirs)


@pytest.fixture(autouse=True)
def here(s3_server: S3Server, disks: Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is one of the first node's machine."""
    for name, value in {**s3_server.env, **WITHOUT_TOKENS, "STEELYARD_CACHE": str(disks.ours)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def uri(padded_smollm2: Path, s3_server: S3Server) -> str:
    filesystem = fsspec.filesystem(
        "s3",
        skip_instance_cache=True,
        key=s3_server.keys.access_key,
        secret=s3_server.keys.secret_key,
        endpoint_url=s3_server.endpoint,
    )
    s3_server.create_bucket("checkpoints")
    filesystem.put(f"{padded_smollm2}/", "checkpoints/m/", recursive=True)
    return "s3://checkpoints/m"


def config(source: str) -> EngineConfig:
    checkpoint = read_checkpoint(source)
    return EngineConfig(
        model=str(fetch_checkpoint(checkpoint, weights=False)),
        dtype="float32",
        max_model_len=WINDOW,
        device="cpu",
        gpu_memory_gb=3,
        tensor_parallel=2,
        checkpoint=checkpoint,
    )


def asked(config: EngineConfig, disks: Disks) -> None:
    """Load the model on the cluster, and ask it."""
    engine = DistributedEngine(config, ClusterSpec((0, 1), 1, "cpu", disks.address), idle_seconds=0)
    try:
        engine.open()
        contract.generates_what_the_model_knows(engine)
    finally:
        engine.close()


def test_a_directory_that_only_this_machine_has_is_refused(disks: Disks) -> None:
    folder = write_checkpoint(disks.ours / "m")
    with pytest.raises(UserError, match=f"'{folder}' is not whole on .*, a node of the Ray cluster: "):
        asked(config(str(folder)), disks)


def largest(disk: Path) -> int:
    """Bytes of the largest file there."""
    return max(path.stat().st_size for path in disk.rglob("*") if path.is_file())


@pytest.mark.slow
def test_weights_are_streamed_to_each_node(uri: str, disks: Disks) -> None:
    asked(replace(config(uri), stream=True), disks)
    assert largest(disks.ours) == largest(disks.theirs) < MUCH


def test_each_node_fetches_what_it_lacks(uri: str, disks: Disks) -> None:
    fetch_checkpoint(read_checkpoint(uri))  # the first node has it from elsewhere
    asked(config(uri), disks)
    assert largest(disks.ours) == largest(disks.theirs) > MUCH
