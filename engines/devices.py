"""From a fleet's device indices to what CUDA calls them, and how an engine's process is told of its slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

INHERITED = "STEELYARD_SLOTS"  # descriptors of slots that a process was started with; see `engines.slots`


def visible_names(devices: Sequence[int], environment: Mapping[str, str]) -> list[str]:
    """CUDA's names of ``devices``. Indices count within ``CUDA_VISIBLE_DEVICES`` where that is set, as CUDA's own do."""
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return [visible[device] if device < len(visible) else str(device) for device in devices]
