"""Docs that two models answer with unlike success: which flipped, which way, and what each model said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.results import Store
from core.scoring.headline import MEAN_OF

if TYPE_CHECKING:
    import pandas as pd

SIDES = ("a", "b")
FLIP_TEXTS = ("prompt", "target", "choices", "texts", "reasoning", "logprobs", "filtered", "error")
FLIP_COLUMNS = (
    "model_a",
    "model_b",
    "benchmark",
    "task",
    "doc_id",
    "change",  # gained or lost, as b sees it
    "value_a",
    "value_b",
    "prompt",
    "target",
    "answer_a",
    "answer_b",
    "reasoning_a",
    "reasoning_b",
)
GAINED, LOST = "gained", "lost"


def flipped_docs(store: Store, row: Mapping[str, Any], headline: Mapping[str, Any], most: int | None) -> pd.DataFrame:
    """Return the docs whose value differs, the largest differences first, ``most`` gained and as many lost."""
    import pandas as pd

    keys = ["task", "doc_id"]
    values = [_indexed(store, row[f"fingerprint_{label}"], [*keys, "value"])["value"] for label in SIDES]
    both = pd.concat(values, axis=1, join="inner", keys=["value_a", "value_b"]).dropna()
    change = both["value_b"] - both["value_a"]
    change = change[change != 0.0]
    if change.empty:
        return pd.DataFrame(columns=list(FLIP_COLUMNS))
    order = change.abs().sort_values(ascending=False, kind="stable").index
    better = (change.loc[order] > 0.0) == bool(row["higher_is_better"])
    kept = [better.index[better.to_numpy() == sign][:most] for sign in (True, False)]
    chosen = kept[0].append(kept[1])
    texts = [_indexed(store, row[f"fingerprint_{label}"], [*keys, *FLIP_TEXTS]).loc[chosen] for label in SIDES]
    answers = [[answer_of(each, headline) for each in side_texts.to_dict("records")] for side_texts in texts]
    reasons = [["\n".join(listed(each)) for each in side_texts["reasoning"]] for side_texts in texts]
    return pd.DataFrame(
        {
            **{name: row[name] for name in ("model_a", "model_b", "benchmark")},
            "task": chosen.get_level_values("task"),
            "doc_id": chosen.get_level_values("doc_id"),
            "change": [GAINED] * len(kept[0]) + [LOST] * len(kept[1]),
            "value_a": both.loc[chosen, "value_a"].to_numpy(),
            "value_b": both.loc[chosen, "value_b"].to_numpy(),
            "prompt": texts[0]["prompt"].to_numpy(),
            "target": texts[0]["target"].to_numpy(),
            "answer_a": answers[0],
            "answer_b": answers[1],
            "reasoning_a": reasons[0],
            "reasoning_b": reasons[1],
        }
    )


def _indexed(store: Store, fingerprint: str, columns: Sequence[str]) -> pd.DataFrame:
    return store.samples_of_cells([fingerprint], columns)[list(columns)].set_index(["task", "doc_id"]).sort_index()


def answer_of(sample: Mapping[Any, Any], headline: Mapping[str, Any]) -> str:
    """Return a model's answer, for people: its texts, or the choice it finds most likely as the metric counts that."""
    if isinstance(sample.get("error"), str):
        return f"(no answer: {sample['error']})"
    texts, choices, logprobs = (listed(sample[name]) for name in ("texts", "choices", "logprobs"))
    if texts:
        return "\n".join(map(str, texts))
    if not choices or len(choices) != len(logprobs):
        return ""
    metric = str(headline["metric"]).removeprefix(MEAN_OF)
    lengths = [max(1, len(choice)) if metric.startswith("acc_norm") else 1 for choice in choices]
    return str(choices[max(range(len(choices)), key=lambda place: logprobs[place] / lengths[place])])


def listed(value: Any) -> list[Any]:
    """Return a list column's value; nothing where it is null, as in files of an older schema."""
    return [] if value is None or isinstance(value, float) else list(value)


@dataclass(frozen=True)
class Agreement:
    """Multiple-choice docs that two models both answered.

    ``same_answers`` is the share with one most likely choice; ``logprob_p99`` and ``logprob_max`` are over |Δ summed logprob| of
    every choice, in nats.
    """

    benchmark: str
    docs: int
    same_answers: float
    logprob_p99: float
    logprob_max: float


def agreement(samples: pd.DataFrame, first: str, second: str) -> list[Agreement]:
    """Compare two models of a samples frame (columns as in `core.results`), one row per benchmark that has choices."""
    import pandas as pd

    scored = samples[samples["logprobs"].map(len) > 1]
    rows = []
    for benchmark, group in scored.groupby("benchmark", observed=True):
        sides = [group[group["model"] == name].set_index(["task", "doc_id"])["logprobs"] for name in (first, second)]
        pairs = [(np.asarray(a), np.asarray(b)) for a, b in pd.concat(sides, axis=1, join="inner").to_numpy()]
        if pairs:
            same = float(np.mean([np.argmax(a) == np.argmax(b) for a, b in pairs]))
            deltas = np.concatenate([np.abs(a - b) for a, b in pairs])
            rows.append(
                Agreement(str(benchmark), len(pairs), same, float(np.quantile(deltas, 0.99)), float(deltas.max()))
            )
    return rows
