"""Weights that go from S3 into the engine and touch no disk: what can be streamed, and whether it stayed the same meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import UserError
from core.model.checkpoint import read_checkpoint
from core.model.facts import Checkpoint
from core.model.files import open_files, weight_files

COPIED_TO_WORKERS = "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"


def check_streamable(checkpoint: Checkpoint) -> None:
    """Raise `core.errors.UserError` where vLLM would stream other files than it would load from a disk.

    Its streamer reads every ``*.safetensors`` beside config.json, whatever the index says.
    """
    files = open_files(checkpoint.source, None)
    weights = set(weight_files(files))
    streamed = {name for name in files.names if name.endswith(".safetensors")}
    if others := sorted(weights ^ streamed):
        raise UserError(
            f"stream_weights: {others[0]!r} is not of the checkpoint's safetensors files, of which alone vLLM streams all: "
            "move it elsewhere, or leave stream_weights out"
        )


def check_unchanged(checkpoint: Checkpoint) -> None:
    """Raise `core.errors.UserError` where what lies at the checkpoint's source is not what the campaign was planned with any more.

    What is fetched is a copy; what is streamed is whatever lies there.
    """
    if read_checkpoint(checkpoint.source, trust_remote_code=True).identity != checkpoint.identity:
        raise UserError(
            f"{checkpoint.source!r} was written to since the campaign was planned, and its weights are streamed: "
            "run the campaign again, or leave stream_weights out"
        )


def streaming_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what to add to ``environment`` for vLLM's streamer to find the S3 server that the AWS variables name, on each node."""
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return {}
    found = {"AWS_ENDPOINT_URL": endpoint, "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0"}
    copied = filter(None, (environment.get(COPIED_TO_WORKERS), *found))
    return {**found, COPIED_TO_WORKERS: ",".join(copied)}
