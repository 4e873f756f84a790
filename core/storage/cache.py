"""From core/model/weights.py."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Directory for fetched checkpoints: ``STEELYARD_CACHE``, else ``~/.cache/steelyard``."""
    return Path(os.environ.get("STEELYARD_CACHE", "~/.cache/steelyard")).expanduser()
