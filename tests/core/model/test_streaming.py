"""What can be streamed from a real S3 server, and what is said of a checkpoint that changed meanwhile."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from core.errors import UserError
from core.model.checkpoint import read_checkpoint
from core.model.weights import COPIED_TO_WORKERS, check_streamable, check_unchanged, streaming_environment
from tests.checkpoints import write_checkpoint


def put(folder: Path, uri: str) -> None:
    fsspec.filesystem("s3", skip_instance_cache=True).put(f"{folder}/", f"{uri}/", recursive=True)


@pytest.mark.s3
def test_weights_that_vllm_would_not_load_from_a_disk_are_not_streamed(tmp_path: Path, s3_root: str) -> None:
    folder = write_checkpoint(tmp_path / "a")
    put(folder, f"{s3_root}/a")
    check_streamable(read_checkpoint(f"{s3_root}/a"))
    (folder / "consolidated.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    put(folder, f"{s3_root}/b")
    with pytest.raises(UserError, match=r"stream_weights: 'consolidated.safetensors' is not of the checkpoint's"):
        check_streamable(read_checkpoint(f"{s3_root}/b"))


@pytest.mark.s3
def test_a_checkpoint_that_was_written_to_is_not_the_one_planned_with(tmp_path: Path, s3_root: str) -> None:
    put(write_checkpoint(tmp_path / "a"), f"{s3_root}/a")
    planned = read_checkpoint(f"{s3_root}/a")
    check_unchanged(planned)
    put(write_checkpoint(tmp_path / "b", seed=1), f"{s3_root}/a")
    with pytest.raises(UserError, match="was written to since the campaign was planned"):
        check_unchanged(planned)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, {}),
        ({"AWS_ENDPOINT_URL": "http://a"}, {"AWS_ENDPOINT_URL": "http://a"}),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}, {"AWS_ENDPOINT_URL": "http://b"}),
    ],
)
def test_the_streamer_finds_the_server_of_the_aws_variables(environment: dict[str, str], found: dict[str, str]) -> None:
    made = streaming_environment({**environment, COPIED_TO_WORKERS: "MINE"})
    copied = made.pop(COPIED_TO_WORKERS, "MINE").split(",")
    path_style = {"RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0"} if found else {}
    assert made == {**found, **path_style}
    assert set(copied) == {"MINE", *made}
