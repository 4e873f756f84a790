"""Cells by what they ask: whoever asks the same, and scores it in another way, finds the answers.

``asked/<digest>/<fingerprint>.json`` is written before a cell's first answer is stored, and says how it is answered. It stays as
long as the cell or its answers do. The digest is `core.benchmark.cell.asked_digest`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from core.storage.storage import Storage
from core.store.commit import FINGERPRINT, checked

FOLDER = "asked"

log = logging.getLogger("steelyard.results")


def write_asked(storage: Storage, digest: str, fingerprint: str, about: Mapping[str, Any]) -> None:
    """Say that a cell asks what ``digest`` names; ``about`` is the part of its metadata that is known by now, JSON values."""
    content = {"since": datetime.now(UTC).isoformat(), "metadata": dict(about)}
    storage.put(f"{FOLDER}/{checked(digest)}/{checked(fingerprint)}.json", json.dumps(content).encode())


def read_asked(storage: Storage, digest: str) -> dict[str, dict[str, Any]]:
    """Return the cells that ask what ``digest`` names, the newest first, each with what `write_asked` was told about it."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for path, data in storage.read_many(storage.list(f"{FOLDER}/{checked(digest)}")).items():
        try:
            content, fingerprint = json.loads(data), cell_of(path)
            found.append((content["since"], fingerprint, content["metadata"]))
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s/%s is not used: it names no cell (%r)", storage.uri, path, error)
    return {fingerprint: about for _, fingerprint, about in sorted(found, key=lambda each: each[:2], reverse=True)}


def forget_asked(storage: Storage, fingerprint: str) -> None:
    """Have nobody find the answers of a cell any more, nor those of cells that asked the same."""
    paths = storage.list(FOLDER)
    digests = {path.split("/")[1] for path in paths if path.endswith(f"/{fingerprint}.json")}
    storage.delete([path for path in paths if path.split("/")[1] in digests])


def cell_of(path: str) -> str:
    """Return the fingerprint in a path of ours. Raises `ValueError` where it has none."""
    parts = path.removesuffix(".json").split("/")
    if len(parts) != 3 or not all(map(FINGERPRINT.fullmatch, parts[1:])) or not path.endswith(".json"):
        raise ValueError("no name of ours")
    return parts[2]
