"""Fingerprint of the rows that a benchmark used: docs and few-shot examples as the dataset gave them, not as prompts show them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any


def rows_digest(docs: Iterable[Any], shots: Iterable[Any] = ()) -> str:
    """Hash docs in their order and the distinct few-shot examples: 64 hex digits, the same wherever the rows came from."""
    digest = hashlib.sha256()
    for row in docs:
        digest.update(_row(row).encode())
    for row in sorted({_row(shot) for shot in shots}):
        digest.update(row.encode())
    return digest.hexdigest()


def drawn_shots(task: Any) -> dict[int, Any]:
    """Return a dict whose values will be the few-shot examples that an lm-eval task draws from now on, each once.

    It stays empty for tasks in Python without a sampler.
    """
    drawn: dict[int, Any] = {}
    sampler = getattr(task, "sampler", None)
    if sampler is None:
        return drawn
    sample = sampler.sample

    def keeping(*args: Any, **kwargs: Any) -> Any:
        shots = sample(*args, **kwargs)
        drawn.update({id(shot): shot for shot in shots})  # kept, so that no other object gets its id
        return shots

    sampler.sample = keeping
    return drawn


def _row(row: Any) -> str:
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Turn what JSON has no word for into what it holds: bytes, arrays and images into their content."""
    if isinstance(value, bytes | bytearray | memoryview):
        return hashlib.sha256(value).hexdigest()
    if hasattr(value, "tobytes"):  # images of Pillow and arrays of NumPy; the shape tells apart what has the same bytes
        shape = [str(getattr(value, name, "")) for name in ("mode", "size", "shape", "dtype")]
        return [*shape, hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
