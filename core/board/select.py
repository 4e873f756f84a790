"""The rows of a leaderboard to look at, suites as benchmarks of it, and facts beside scores: sizes, tokens, GPU-seconds. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from core.compare.sides import Records
from core.errors import UserError, nearest
from core.model.placement import GB
from core.spec.suite import Suite, suites

if TYPE_CHECKING:
    import pandas as pd

TIERS = (
    (1.0, "up to 1 GB"),
    (8.0, "1 to 8 GB"),
    (30.0, "8 to 30 GB"),
    (160.0, "30 to 160 GB"),
    (math.inf, "over 160 GB"),
)
UNKNOWN = "size unknown"


@dataclass(frozen=True)
class Selection:
    """A choice of a leaderboard's rows: names may hold ``*`` and ``?``; what is empty selects all."""

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


def with_suite(
    samples: pd.DataFrame, board: pd.DataFrame, suite: Suite
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Add a suite as one more benchmark, the mean of its members' scores, each of the same weight.

    Takes and returns the frames of `core.compare.compare.compare`, and a remark on each model that lacks some members that others
    have and so gets no row. Docs are those of all members, which are the tasks of the suite, so that intervals and tests follow as
    for a group of tasks that weigh the same. Docs in clusters are taken as on their own.
    """
    import pandas as pd

    named = [member.name for member in suite.members]
    members = board[board["benchmark"].isin(named)]
    present = [name for name in named if name in set(members["benchmark"])]
    if len(present) < 2 or not members["higher_is_better"].all():
        return samples, board, []
    label, rows, parts, remarks = f"{suite.name} (suite)", [], [], []
    for model, own in members.groupby("model", sort=False):
        newest = own.drop_duplicates("benchmark")
        if len(newest) < len(present) or newest["score"].isna().any():
            remarks.append(f"{model}: {len(newest)} of {len(present)} benchmarks of {label}, so no row there")
            continue
        fingerprint = f"{suite.label}: {model}"
        rows.append(_suite_row(newest, label, fingerprint, f"mean of {len(present)} of {len(named)}"))
        parts += [_suite_docs(samples, each, label, fingerprint) for each in newest.to_dict("records") if len(samples)]
    if not rows:
        return samples, board, remarks
    added = pd.DataFrame(rows).reindex(columns=board.columns).astype(board.dtypes.to_dict(), errors="ignore")
    return pd.concat([samples, *parts]), pd.concat([board, added], ignore_index=True), remarks


def _suite_row(own: pd.DataFrame, label: str, fingerprint: str, metric: str) -> dict[str, Any]:
    return {
        **{name: own[name].iloc[0] for name in ("campaign", "model", "engine", "tensor_parallel", "reason")},
        "benchmark": label,
        "task": label,
        "metric": metric,
        "filter": "",
        "score": float(own["score"].astype(float).mean()),
        "docs": int(own["docs"].sum()),
        "higher_is_better": True,
        "notes": "",
        "fingerprint": fingerprint,
    }


def _suite_docs(samples: pd.DataFrame, row: dict[Any, Any], label: str, fingerprint: str) -> pd.DataFrame:
    chosen = (samples["benchmark"] == row["benchmark"]) & (samples["model"] == row["model"])
    own = samples[chosen & (samples["fingerprint"] == row["fingerprint"])].sort_values(["task", "doc_id"])
    # Members of a benchmark become one task: a doc of a suite is told by its benchmark, and by task and doc within that.
    keys = own["task"].astype(str) + "\x00" + own["doc_id"].astype(str)
    return own.assign(benchmark=label, task=row["benchmark"], doc_id=keys, fingerprint=fingerprint)


def with_facts(frame: pd.DataFrame, records: Records) -> pd.DataFrame:
    """Add sizes, GPUs, tokens and times to a leaderboard, from commit records (`core.results.Store.commit_records`)."""
    import pandas as pd

    rows = [_facts(records.get(fingerprint, {})) for fingerprint in frame["fingerprint"]]
    return pd.concat([frame, pd.DataFrame(rows, columns=list(_facts({})), index=frame.index)], axis=1)


def tier_of(weight_gb: float | None) -> str:
    """Return the size tier of so many GB of weights as loaded."""
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
        "weight_gb": weight_gb,  # as loaded, 10⁹ bytes
        "tier": tier_of(weight_gb),
        "gpus": gpus,
        # Of the cell's requests; benchmarks that ran side by side on one engine each count them.
        "gpu_seconds": seconds * gpus if seconds and gpus else None,
        "prompt_tokens": metadata.get("prompt_tokens"),
        "completion_tokens": metadata.get("completion_tokens"),
        "revision": record.get("settings", {}).get("revision"),
        "committed": record.get("committed"),
    }
