"""Significant differences of a leaderboard: every two models of a benchmark compared, doc by doc, from stored samples.

A model's score on a benchmark is a mean of its docs' values (``value`` of the samples): over all docs, or over tasks that weigh
the same however many docs they have. Which of the two, the score itself tells. A benchmark of several tasks is tested on that same
mean, its tasks taken as given and its docs as drawn (`core.scoring.statistics`): a pair's difference is that of the scores over the
docs both answered. A score that is no such mean (perplexity, F1, nested groups of own weights) has no interval and is not
compared.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.compare.paired import cluster_keys, compact_letters, compare_paired, holm
from core.errors import StoreError, StoreUnreachableError
from core.results import Store
from core.scoring.statistics import LEVEL, Floats, Weighting, estimate, interval
from core.tables import ranked

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_COLUMNS = ("fingerprint", "task", "doc_id", "value")  # and "doc" where a benchmark names a cluster
PAIR_COLUMNS = (
    "benchmark",
    "metric",
    "model_a",  # the one with the better score
    "model_b",
    "difference",  # of the two scores, a - b, over the docs both have a value for
    "low",
    "high",
    "p",
    "p_holm",  # over all pairs of the table
    "method",
    "docs",
    "left_out",  # docs that one of the two has no value for
    "wins",  # docs where a's value is the better one
    "losses",
    "ties",
    "fingerprint_a",
    "fingerprint_b",
)

log = logging.getLogger("steelyard.results")


@dataclass(frozen=True)
class Comparison:
    """``board``: the leaderboard with ``low``, ``high`` (NaN where unknown) and ``letters`` (None); ``pairs``: `PAIR_COLUMNS`.

    Two models of one benchmark share a letter where their difference is not significant after Holm's correction. Models that were
    not compared have no letters.
    """

    board: pd.DataFrame
    pairs: pd.DataFrame


@dataclass(frozen=True)
class _Sheet:
    """Rows of one benchmark and metric, best first: ``values`` and ``asked`` [rows, docs], ``tasks`` and ``clusters`` [docs]."""

    rows: list[dict[str, Any]]
    values: Floats
    asked: NDArray[np.bool_]
    tasks: NDArray[np.int64]
    clusters: NDArray[np.int64] | None
    weights: list[set[Weighting]]  # under which the docs' mean is the row's score


def compare_store(store: Store, campaign: str | None = None) -> Comparison:
    """Read a leaderboard and what `compare` needs of its samples, as `read_values` does. Raises `core.errors.StoreError`."""
    board = store.leaderboard(campaign)
    return compare(read_values(store, board, campaign), board)


def read_values(store: Store, board: pd.DataFrame, campaign: str | None = None) -> pd.DataFrame:
    """Read what `compare` needs of the samples behind a leaderboard, or a part of one.

    Returns an empty frame, with a warning, where samples are damaged or gone. Raises `core.errors.StoreUnreachableError`.
    """
    import pandas as pd

    clustered = set(board.loc[board["cluster"].notna(), "benchmark"])
    reads = [(set(board["benchmark"]) - clustered, SAMPLE_COLUMNS), (clustered, (*SAMPLE_COLUMNS, "doc"))]
    try:
        samples = [store.samples(campaign, columns=columns, benchmarks=names) for names, columns in reads if names]
    except StoreUnreachableError:
        raise
    except StoreError as error:
        log.warning("no intervals and no comparisons: %s", error)
        samples = []
    return pd.concat(samples) if samples else pd.DataFrame()


def compare(samples: pd.DataFrame, leaderboard: pd.DataFrame, *, level: float = LEVEL, seed: int = 0) -> Comparison:
    """Compare the models of each benchmark, from frames as `core.results.Store` gives them.

    ``samples`` needs `SAMPLE_COLUMNS`, ``benchmark`` and ``model``, and ``doc`` for benchmarks whose rows name a ``cluster``; it
    may be empty. Two models' docs are the same where task and doc_id are. Intervals are at ``level``, differences significant at
    1 - level.
    """
    import pandas as pd

    sheets = list(_sheets(samples, leaderboard)) if len(samples) else []
    bounds = {
        row["_row"]: bound for sheet in sheets for row, bound in zip(sheet.rows, _bounds(sheet, level), strict=True)
    }
    pairs = [pair for sheet in sheets for pair in _pairs(sheet, level, seed)]
    adjusted = dict(zip([pair["_rows"] for pair in pairs], holm([pair["p"] for pair in pairs]), strict=True))
    distinct = {frozenset(rows) for rows, p in adjusted.items() if p <= 1.0 - level}
    letters: dict[int, str] = {}
    for sheet in sheets:
        compared = [row["_row"] for row, weights in zip(sheet.rows, sheet.weights, strict=True) if weights]
        if len(compared) > 1:
            differ = [[{one, other} in distinct for other in compared] for one in compared]
            letters.update(zip(compared, compact_letters(np.array(differ)), strict=True))
    places = range(len(leaderboard))
    board = leaderboard.assign(
        low=[bounds.get(place, (math.nan, math.nan))[0] for place in places],
        high=[bounds.get(place, (math.nan, math.nan))[1] for place in places],
        letters=pd.Series([letters.get(place) for place in places], leaderboard.index, dtype=object),
    )
    table = pd.DataFrame([{**pair, "p_holm": adjusted[pair["_rows"]]} for pair in pairs], columns=list(PAIR_COLUMNS))
    return Comparison(board, table)


def not_compared(comparison: Comparison) -> list[str]:
    """Return the benchmarks on which several models have a score and none could be compared."""
    models = comparison.board["benchmark"].value_counts()
    compared = set(comparison.pairs["benchmark"])
    return sorted(str(name) for name, count in models.items() if count > 1 and name not in compared)


def _sheets(samples: pd.DataFrame, leaderboard: pd.DataFrame) -> Iterator[_Sheet]:
    import pandas as pd

    of_benchmark: dict[Any, pd.DataFrame] = dict(iter(samples.groupby("benchmark", observed=True)))
    board = ranked(leaderboard.assign(_row=np.arange(len(leaderboard))))
    for (benchmark, *_), rows in board.groupby(["benchmark", "metric", "filter"], sort=False, dropna=False):
        answered = of_benchmark.get(benchmark)
        if answered is None:
            continue
        keys = pd.MultiIndex.from_frame(answered[["task", "doc_id"]])
        docs = keys.unique().sort_values()
        codes, tasks = docs.get_indexer(keys), pd.factorize(docs.get_level_values("task"))[0]
        places = answered.groupby(["model", "fingerprint"], observed=True).indices
        values = np.full((len(rows), len(docs)), math.nan)
        asked = np.zeros(values.shape, dtype=bool)
        entries = [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
        for number, row in enumerate(entries):
            at = places.get((row["model"], row["fingerprint"]), np.zeros(0, dtype=np.intp))
            values[number, codes[at]] = answered["value"].to_numpy(dtype=np.float64)[at]
            asked[number, codes[at]] = True
        weights = [_weights(values[number], tasks, row["score"]) for number, row in enumerate(entries)]
        yield _Sheet(entries, values, asked, tasks, _clusters(str(benchmark), answered, codes, rows), weights)


def _weights(values: Floats, tasks: NDArray[np.int64], score: Any) -> set[Weighting]:
    import pandas as pd

    if pd.isna(score):
        return set()
    kinds: tuple[Weighting, ...] = ("docs", "tasks")
    return {
        weights
        for weights in kinds
        if math.isclose(estimate(values, tasks=tasks, weights=weights).value, score, rel_tol=1e-9, abs_tol=1e-9)
    }


def _clusters(
    benchmark: str, answered: pd.DataFrame, codes: NDArray[np.intp], rows: pd.DataFrame
) -> NDArray[np.int64] | None:
    import pandas as pd

    named = [field for field in rows.get("cluster", []) if isinstance(field, str)]
    if not named or "doc" not in answered:
        return None
    first = np.unique(codes, return_index=True)[1]
    texts = answered["doc"].iloc[first].fillna("null")
    return pd.factorize(pd.Series(cluster_keys(benchmark, texts, named[0])))[0]


def _bounds(sheet: _Sheet, level: float) -> Iterator[tuple[float, float]]:
    for values, weights in zip(sheet.values, sheet.weights, strict=True):
        if not weights:
            yield math.nan, math.nan
        else:
            yield interval(values, tasks=sheet.tasks, weights=min(weights), clusters=sheet.clusters, level=level)


def _pairs(sheet: _Sheet, level: float, seed: int) -> Iterator[dict[str, Any]]:
    for one, other in combinations(range(len(sheet.rows)), 2):
        weights = sheet.weights[one] & sheet.weights[other]
        if not weights:
            continue
        docs = sheet.asked[one] | sheet.asked[other]
        found = compare_paired(
            sheet.values[one, docs],
            sheet.values[other, docs],
            tasks=sheet.tasks[docs],
            weights=min(weights),
            clusters=None if sheet.clusters is None else sheet.clusters[docs],
            level=level,
            seed=seed,
        )
        a, b = sheet.rows[one], sheet.rows[other]
        better, worse = (found.wins, found.losses) if a["higher_is_better"] else (found.losses, found.wins)
        yield {
            "_rows": (a["_row"], b["_row"]),
            "benchmark": a["benchmark"],
            "metric": a["metric"],
            "model_a": a["model"],
            "model_b": b["model"],
            "difference": found.difference,
            "low": found.low,
            "high": found.high,
            "p": found.p_value,
            "method": found.method,
            "docs": found.docs,
            "left_out": found.left_out,
            "wins": better,
            "losses": worse,
            "ties": found.ties,
            "fingerprint_a": a["fingerprint"],
            "fingerprint_b": b["fingerprint"],
        }
