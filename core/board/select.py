"""What of a leaderboard to look at, and what stands beside its scores: size tiers, tokens, GPU-seconds. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from core.errors import UserError, nearest
from core.model.placement import GB
from core.spec.suite import suites

if TYPE_CHECKING:
    import pandas as pd

    from core.spec.suite import Suite

TIERS = (
    (1.0, "up to 1 GB"),
    (8.0, "1 to 8 GB"),
    (30.0, "8 to 30 GB"),
    (160.0, "30 to 160 GB"),
    (math.inf, "over 160 GB"),
)
UNKNOWN = "size unknown"
FACTS = (
    "weight_gb",  # as loaded, 10⁹ bytes
    "tier",
    "gpus",
    "gpu_seconds",  # of the cell's requests; benchmarks that ran side by side on one engine each count them
    "prompt_tokens",
    "completion_tokens",
    "revision",
    "committed",
)


@dataclass(frozen=True)
class Selection:
    """Which rows of a leaderboard: names may hold ``*`` and ``?``; what is empty selects all."""

    benchmarks: Sequence[str] = ()
    models: Sequence[str] = ()
    suite: str | None = None
    members: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        members = frozenset(each.name for each in find_suite(self.suite).members) if self.suite else frozenset()
        object.__setattr__(self, "members", members)


def find_suite(name: str) -> Suite:
    """Return a suite. Raises `core.errors.UserError` where there is none of that name."""
    found = suites().get(name)
    if found is None:
        raise UserError(f"--suite {name!r}: no such suite{nearest(name, suites())}; there are {', '.join(suites())}")
    return found


def select(frame: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """Return the rows selected. Raises `core.errors.UserError` for a name that no row has, as long as there are rows."""
    if frame.empty:
        return frame
    for option, column, names in (
        ("--benchmark", "benchmark", selection.benchmarks),
        ("--model", "model", selection.models),
    ):
        known = sorted(set(frame[column]))
        for name in names:
            if not any(fnmatchcase(each, name) for each in known):
                hint = nearest(name, known) or f"; there are {', '.join(known)}"
                raise UserError(f"{option} {name!r}: no results of it{hint}")
        if names:
            frame = frame[[any(fnmatchcase(each, name) for name in names) for each in frame[column]]]
    if selection.members:
        kept = frame[frame["benchmark"].isin(selection.members)]
        if kept.empty:
            wanted = ", ".join(sorted(selection.members))
            raise UserError(f"--suite {selection.suite!r}: no results of any of its benchmarks ({wanted})")
        frame = kept
    return frame.reset_index(drop=True)


def with_facts(frame: pd.DataFrame, records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Add `FACTS` to a leaderboard, from commit records (`core.results.Store.commit_records`)."""
    import pandas as pd

    rows = [_facts(records.get(fingerprint, {})) for fingerprint in frame["fingerprint"]]
    facts = pd.DataFrame(rows, columns=list(FACTS), index=frame.index)
    return pd.concat([frame, facts], axis=1)


def tier_of(weight_gb: float | None) -> str:
    """Name the size tier of so many GB of weights as loaded."""
    if weight_gb is None:
        return UNKNOWN
    return next(name for most, name in TIERS if weight_gb <= most)


def tiers(frame: pd.DataFrame) -> list[str]:
    """List the tiers of a leaderboard's models, the smallest first."""
    present = set(frame["tier"])
    return [name for name in (*(name for _, name in TIERS), UNKNOWN) if name in present]


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    metadata = record.get("metadata", {})
    placement, seconds = metadata.get("placement") or {}, metadata.get("seconds")
    weight_gb = placement["weight_bytes"] / GB if "weight_bytes" in placement else None
    degrees = [placement.get(name) for name in ("tensor_parallel", "pipeline_parallel", "replicas")]
    gpus = math.prod(degrees) if all(degrees) else None  # type: ignore[arg-type]
    return {
        "weight_gb": weight_gb,
        "tier": tier_of(weight_gb),
        "gpus": gpus,
        "gpu_seconds": seconds * gpus if seconds and gpus else None,
        "prompt_tokens": metadata.get("prompt_tokens"),
        "completion_tokens": metadata.get("completion_tokens"),
        "revision": record.get("settings", {}).get("revision"),
        "committed": record.get("committed"),
    }
