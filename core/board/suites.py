"""A suite as one more benchmark of the leaderboard: the mean of its members' scores, each of the same weight. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.spec.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

LABEL = "{} (suite)"


def with_suite(
    samples: pd.DataFrame, board: pd.DataFrame, suite: Suite
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Add a suite's rows to the frames that `core.compare.compare.compare` takes. Third, what keeps models from having one.

    A model has a row where it has every member that any model of ``board`` has. Docs are then those of all members, which are the
    tasks of the suite, so that intervals and tests follow as for a group of tasks that weigh the same. Docs in clusters are taken
    as on their own.
    """
    import pandas as pd

    named = [member.name for member in suite.members]
    members = board[board["benchmark"].isin(named)]
    present = [name for name in named if name in set(members["benchmark"])]
    if len(present) < 2 or not members["higher_is_better"].all():
        return samples, board, []
    label, rows, parts, remarks = LABEL.format(suite.name), [], [], []
    for model, own in members.groupby("model", sort=False):
        newest = own.drop_duplicates("benchmark")
        if len(newest) < len(present) or newest["score"].isna().any():
            remarks.append(f"{model}: {len(newest)} of {len(present)} benchmarks of {label}, so no row there")
            continue
        fingerprint = f"{suite.label}: {model}"
        rows.append(_row(newest, label, fingerprint, f"mean of {len(present)} of {len(named)}"))
        parts += [_docs(samples, each, label, fingerprint) for each in newest.to_dict("records") if len(samples)]
    if not rows:
        return samples, board, remarks
    added = pd.DataFrame(rows).reindex(columns=board.columns).astype(board.dtypes.to_dict(), errors="ignore")
    return pd.concat([samples, *parts]), pd.concat([board, added], ignore_index=True), remarks


def _row(own: pd.DataFrame, label: str, fingerprint: str, metric: str) -> dict[str, Any]:
    shared = {name: own[name].iloc[0] for name in ("campaign", "model", "engine", "tensor_parallel", "reason")}
    return {
        **shared,
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


def _docs(samples: pd.DataFrame, row: dict[Any, Any], label: str, fingerprint: str) -> pd.DataFrame:
    chosen = (samples["benchmark"] == row["benchmark"]) & (samples["model"] == row["model"])
    own = samples[chosen & (samples["fingerprint"] == row["fingerprint"])]
    own = own.sort_values(["task", "doc_id"])
    # Members of a benchmark become one task: a doc of a suite is told by its benchmark, and by task and doc within that.
    keys = own["task"].astype(str) + "\x00" + own["doc_id"].astype(str)
    return own.assign(benchmark=label, task=row["benchmark"], doc_id=keys, fingerprint=fingerprint)
