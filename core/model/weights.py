"""Weights on local disk before a GPU is held: hub and s3:// checkpoints are fetched once, directories are used as they are."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from core.errors import HubUnreachableError, UserError
from core.model.checkpoint import Checkpoint, read_checkpoint
from core.model.files import explained, open_files
from core.model.headers import read_header
from core.model.identity import listing_of
from core.model.weight_choice import WEIGHT_ENDINGS, asked_format
from core.model.weight_files import NO_ARGUMENTS, read_weights, weight_files
from core.storage.open import cache_dir, open_filesystem
from core.storage.storage import within

COPIED_TO_WORKERS = "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"
SMALL_FILES = ("*.json", "*.model", "*.model.v*", "*.txt", "*.jinja", "*.py", "*.tiktoken")
ORIGINAL = "original/"  # a folder of hub repositories: the same weights once more, which vLLM leaves there, too


def fetch_checkpoint(checkpoint: Checkpoint, *, weights: bool = True) -> Path:
    """Return a local directory that holds the checkpoint, with or without its weights. Of several callers at once, one fetches.

    Without weights, safetensors files of S3 have their headers only: vLLM goes by them too, and such a file cannot be loaded.

    Raises `core.errors.UserError` where the hub has no such revision, `core.errors.HubUnreachableError` where it does not answer.
    """
    source = checkpoint.source
    if checkpoint.place == "s3":
        # Two places, so that the one without weights is the same on machines that hold both.
        name = checkpoint.identity if weights else f"{checkpoint.identity}-without-weights"
        return _from_s3(checkpoint, cache_dir() / "checkpoints" / name, weights=weights)
    if (folder := Path(source).expanduser()).is_dir():
        return folder.resolve()
    return _from_hub(checkpoint, weights=weights)


def has_weights(folder: str, names: Sequence[str], arguments: Mapping[str, Any] = NO_ARGUMENTS) -> bool:
    """Whether a directory holds the weight files ``names``, each whole, and vLLM would load these under ``arguments``."""
    try:
        return Path(folder).is_dir() and read_weights(open_files(folder, None), arguments=arguments).files == tuple(
            names
        )
    except UserError:
        return False


def read_ahead(files: Iterable[Path]) -> int:
    """Have the kernel read the weights in ``files`` into its page cache, in the background.

    Only where they take at most half of the memory that is available. Returns how many bytes were asked for.
    """
    found = [file for file in files if file.is_file()]
    size = sum(file.stat().st_size for file in found)
    if not hasattr(os, "posix_fadvise") or size > psutil.virtual_memory().available // 2:
        return 0
    for file in found:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
    return size


def _from_hub(checkpoint: Checkpoint, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    repo, revision = checkpoint.source, checkpoint.revision
    try:
        allowed = hub_patterns(checkpoint, weights=weights)
        return Path(snapshot_download(repo, revision=revision, allow_patterns=allowed, ignore_patterns=f"{ORIGINAL}*"))
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(f"weights of {repo!r} at {revision} cannot be had: {_first_line(error)}") from error
    except Exception as error:  # the hub says no, or its HTTP client, whose errors have no base that stays
        raise HubUnreachableError(
            f"weights of {repo!r} at {revision} cannot be fetched: {_first_line(error)}"
        ) from error


def hub_patterns(checkpoint: Checkpoint, *, weights: bool) -> list[str]:
    """Return patterns of the files that are fetched of a repository; see `_is_wanted`."""
    kept = [*map(glob.escape, checkpoint.weight_files), "*/*.safetensors"] if weights else []
    return [*kept, *SMALL_FILES]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _from_s3(checkpoint: Checkpoint, target: Path, *, weights: bool) -> Path:
    """Download next to ``target`` and rename: a directory of that name is always as it should be."""
    if target.is_dir():
        return target
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if not target.is_dir():
            partial = Path(tempfile.mkdtemp(prefix=f"{target.name[:16]}-", dir=target.parent))
            try:
                _download(checkpoint, partial, weights=weights)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return target


def _download(checkpoint: Checkpoint, folder: Path, *, weights: bool) -> None:
    uri = checkpoint.source
    filesystem, root = open_filesystem(uri)
    with explained(uri):
        names = [within(key.removeprefix(f"{root}/")) for key in filesystem.find(f"{root}/")]
        wanted = [name for name in names if _is_wanted(name, checkpoint.weight_files if weights else None)]
        filesystem.get([f"{root}/{name}" for name in wanted], [str(folder / name) for name in wanted])
    files = open_files(uri, None)
    if listing_of(files, checkpoint.weight_files) != checkpoint.listing:
        raise UserError(
            f"{uri!r} was written to since the campaign was planned: run the campaign again once nobody writes there"
        )
    if not weights:
        for name in filter(lambda name: name.endswith(".safetensors"), checkpoint.weight_files):
            (folder / name).write_bytes(files.read(name, 0, read_header(files, name).data_start))


def _is_wanted(name: str, chosen: Sequence[str] | None) -> bool:
    """Whether a file is fetched: of weights the ``chosen`` ones (None: none), and what folders hold, which some models load."""
    if not name.endswith(WEIGHT_ENDINGS):
        return True
    return chosen is not None and (name in chosen or ("/" in name and not name.startswith(ORIGINAL)))


def check_streamable(checkpoint: Checkpoint, arguments: Mapping[str, Any] = NO_ARGUMENTS) -> None:
    """Raise `core.errors.UserError` where vLLM would stream other files than it would load from a disk.

    Its streamer reads every ``*.safetensors`` beside config.json, whatever the index says.
    """
    load_format = asked_format(arguments)
    streaming = {**arguments, "load_format": "runai_streamer"} if load_format == "auto" else arguments
    if load_format not in ("auto", "runai_streamer", "runai_streamer_sharded"):
        raise UserError(
            f"vllm.load_format = {load_format!r}: stream_weights has a format of its own: leave load_format out"
        )
    streamed = set(weight_files(open_files(checkpoint.source, None), streaming).files)
    if others := sorted(streamed ^ set(checkpoint.weight_files)):
        raise UserError(
            f"stream_weights: vLLM would stream {', '.join(sorted(streamed))}, and from a disk it loads "
            f"{', '.join(checkpoint.weight_files)}: move {others[0]!r} elsewhere, or leave stream_weights out"
        )


def check_unchanged(
    checkpoint: Checkpoint, *, trust_remote_code: bool = False, arguments: Mapping[str, Any] = NO_ARGUMENTS
) -> None:
    """Raise `core.errors.UserError` where the checkpoint's source has changed since the campaign was planned.

    Fetched weights are a copy; streamed ones are whatever lies there.
    """
    found = read_checkpoint(checkpoint.source, trust_remote_code=trust_remote_code, arguments=arguments)
    if found.identity != checkpoint.identity:
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
