"""Who gets GPUs next. Pure: the flows and any simulator call the same functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Demand:
    """A model that waits for ``gpus`` GPUs; ``order`` is its place in the campaign."""

    order: int
    gpus: int


def next_to_start(waiting: Sequence[Demand], free: int) -> Demand | None:
    """Return the demand that starts now on ``free`` GPUs, or None.

    The largest comes first, equal ones in campaign order, and nothing overtakes it: what small models would take from a waiting
    gang could keep it waiting for ever.
    """
    if not waiting:
        return None
    first = min(waiting, key=lambda demand: (-demand.gpus, demand.order))
    return first if first.gpus <= free else None
