"""Do two runs of one benchmark answer alike? Compared doc by doc, from stored samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


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
    scored = samples[samples["logprobs"].map(len) > 1]
    rows = []
    for benchmark, group in scored.groupby("benchmark", observed=True):
        sides = [group[group["model"] == name].set_index(["task", "doc_id"])["logprobs"] for name in (first, second)]
        pairs = pd.concat(sides, axis=1, join="inner", keys=["first", "second"])
        if pairs.empty:
            continue
        same = [np.argmax(a) == np.argmax(b) for a, b in zip(pairs["first"], pairs["second"], strict=True)]
        deltas = np.concatenate(
            [np.abs(np.asarray(a) - np.asarray(b)) for a, b in zip(pairs["first"], pairs["second"], strict=True)]
        )
        rows.append(
            Agreement(
                benchmark=str(benchmark),
                docs=len(pairs),
                same_answers=float(np.mean(same)),
                logprob_p99=float(np.quantile(deltas, 0.99)),
                logprob_max=float(deltas.max()),
            )
        )
    return rows
