"""Weights on local disk before a GPU is held: hub and s3:// checkpoints are fetched once, directories are used as they are."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil

from core.checkpoint.checkpoint import Checkpoint
from core.errors import HubUnreachableError, UserError


def cache_dir() -> Path:
    """Directory for fetched checkpoints: ``STEELYARD_CACHE``, else ``~/.cache/steelyard``."""
    return Path(os.environ.get("STEELYARD_CACHE", "~/.cache/steelyard")).expanduser()


def fetch_weights(checkpoint: Checkpoint) -> Path:
    """Return a local directory that holds the checkpoint.

    Raises `core.errors.UserError` where the hub has no such revision, `core.errors.HubUnreachableError` where it does not answer.
    """
    source = checkpoint.source
    if source.startswith("s3://"):
        return _from_s3(source, cache_dir() / "checkpoints" / checkpoint.identity)
    if Path(source).is_dir():
        return Path(source).resolve()
    return _from_hub(checkpoint)


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


def _from_hub(checkpoint: Checkpoint) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    # Of a repository that offers both, vLLM loads safetensors alone.
    weights = (
        ["pytorch_model*.bin"] if checkpoint.parameters is None and not checkpoint.quantization else ["*.safetensors"]
    )
    patterns = [*weights, "*.json", "*.model", "*.txt", "*.jinja", "*.py", "*.tiktoken"]
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


def _from_s3(uri: str, target: Path) -> Path:
    """Download next to ``target`` and rename: a directory of that name is always whole."""
    if target.is_dir():
        return target
    from core.store.s3 import s3_filesystem
    from core.store.storage import within

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{target.name[:16]}-", dir=target.parent))
    try:
        filesystem, root = s3_filesystem(attempts=3), uri.removeprefix("s3://").rstrip("/") + "/"
        for key in filesystem.find(root):
            within(key.removeprefix(root))
        filesystem.get(root, f"{partial}/", recursive=True)
        partial.rename(target)
    except OSError:
        # Another process may have put the same content there first.
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
