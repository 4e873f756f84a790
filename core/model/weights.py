"""Weights on local disk before a GPU is held: hub and s3:// checkpoints are fetched once, directories are used as they are."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from core.errors import HubUnreachableError, UserError
from core.model.checkpoint import Checkpoint, read_checkpoint
from core.model.files import open_files
from core.model.weight_files import read_header, read_weights, weight_files
from core.storage.open import cache_dir, open_filesystem
from core.storage.storage import within

COPIED_TO_WORKERS = "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"
WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def fetch_checkpoint(checkpoint: Checkpoint, *, weights: bool = True) -> Path:
    """Return a local directory that holds the checkpoint, with or without its weights. Of several callers at once, one fetches.

    Without weights, safetensors files of S3 have their headers only: vLLM goes by them too, and such a file cannot be loaded.

    Raises `core.errors.UserError` where the hub has no such revision, `core.errors.HubUnreachableError` where it does not answer.
    """
    source = checkpoint.source
    if checkpoint.place == "s3":
        # Two places, so that the one without weights is the same on machines that hold both.
        name = checkpoint.identity if weights else f"{checkpoint.identity}-without-weights"
        return _from_s3(source, cache_dir() / "checkpoints" / name, weights=weights)
    if (folder := Path(source).expanduser()).is_dir():
        return folder.resolve()
    return _from_hub(checkpoint, weights=weights)


def has_weights(folder: str) -> bool:
    """Whether a directory holds a checkpoint with all its weights."""
    try:
        return Path(folder).is_dir() and read_weights(open_files(folder, None)).bytes > 0
    except UserError:
        return False


def read_ahead(folder: Path) -> int:
    """Have the kernel read the weights in ``folder`` into its page cache, in the background.

    Only where they take at most half of the memory that is available. Returns how many bytes were asked for.
    """
    files = sorted(folder.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    if not hasattr(os, "posix_fadvise") or size > psutil.virtual_memory().available // 2:
        return 0
    for file in files:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
    return size


def _from_hub(checkpoint: Checkpoint, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    # Of a repository that offers both, vLLM loads safetensors alone.
    kept = "pytorch_model*.bin" if checkpoint.parameters is None and not checkpoint.quantization else "*.safetensors"
    patterns = [*([kept] if weights else []), "*.json", "*.model", "*.txt", "*.jinja", "*.py", "*.tiktoken"]
    repo, revision = checkpoint.source, checkpoint.revision
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(f"weights of {repo!r} at {revision} cannot be had: {_first_line(error)}") from error
    except Exception as error:  # the hub says no, or its HTTP client, whose errors have no base that stays
        raise HubUnreachableError(
            f"weights of {repo!r} at {revision} cannot be fetched: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _from_s3(uri: str, target: Path, *, weights: bool) -> Path:
    """Download next to ``target`` and rename: a directory of that name is always as it should be."""
    if target.is_dir():
        return target
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if not target.is_dir():
            partial = Path(tempfile.mkdtemp(prefix=f"{target.name[:16]}-", dir=target.parent))
            try:
                _download(uri, partial, weights=weights)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return target


def _download(uri: str, folder: Path, *, weights: bool) -> None:
    filesystem, root = open_filesystem(uri)
    names = [within(key.removeprefix(f"{root}/")) for key in filesystem.find(f"{root}/")]
    wanted = [name for name in names if weights or not name.endswith(WEIGHT_ENDINGS)]
    filesystem.get([f"{root}/{name}" for name in wanted], [str(folder / name) for name in wanted])
    if not weights:
        files = open_files(uri, None)
        for name in filter(lambda name: name.endswith(".safetensors"), files.names):
            (folder / name).write_bytes(files.read(name, 0, read_header(files, name).data_start))


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
    """Raise `core.errors.UserError` where the checkpoint's source has changed since the campaign was planned.

    Fetched weights are a copy; streamed ones are whatever lies there.
    """
    if read_checkpoint(checkpoint.source, trust_remote_code=True).identity != checkpoint.identity:
        raise UserError(
            f"{checkpoint.source!r} was written to since the campaign was planned, and its weights are streamed: "
            "run the campaign again, or leave stream_weights out"
        )


def streaming_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the additions to ``environment`` by which vLLM's streamer finds the S3 server of the AWS variables, on each node."""
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return {}
    found = {"AWS_ENDPOINT_URL": endpoint, "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0"}
    copied = filter(None, (environment.get(COPIED_TO_WORKERS), *found))
    return {**found, COPIED_TO_WORKERS: ",".join(copied)}
