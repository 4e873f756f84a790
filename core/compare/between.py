"""Two sides compared: gains and losses of b on a, benchmark by benchmark, and the docs behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from core.compare.compare import SAMPLE_COLUMNS, compare
from core.compare.flips import FLIP_COLUMNS, flipped_docs
from core.compare.sides import Records, Side, model_pairs, runs_and_records, side
from core.errors import UserError, nearest
from core.results import Store
from core.tables import is_significant

if TYPE_CHECKING:
    import pandas as pd

A, B = "a", "b"
BETTER, WORSE = "better", "worse"
ROW_COLUMNS = (
    "model_a",
    "model_b",
    "benchmark",
    "metric",
    "score_a",
    "score_b",
    "difference",  # b - a, over the docs both have a value for; of the two scores where docs have none
    "low",
    "high",
    "p",
    "p_holm",  # over the benchmarks of the two models
    "change",  # "better" or "worse" where the difference is significant after Holm's correction, else ""
    "method",  # empty where docs have no values to test
    "docs",
    "left_out",
    "gained",  # docs where b's value is the better one
    "lost",
    "ties",
    "higher_is_better",
    "settings",  # that differ, and so may explain a difference
    "fingerprint_a",
    "fingerprint_b",
)
SampleReader = Callable[[str, tuple[str, ...]], "pd.DataFrame"]  # a cell's samples, by fingerprint and columns
DESCRIBED = ("source", "revision", "datasets", "checkpoint")  # what the two sides are, not how they were asked


@dataclass(frozen=True)
class SidesComparison:
    """``rows`` (`ROW_COLUMNS`) and ``flips`` (`core.compare.flips.FLIP_COLUMNS`); a sentence for each cell of one side alone."""

    a: Side
    b: Side
    rows: pd.DataFrame
    flips: pd.DataFrame
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def compare_sides(
    store: Store,
    a: str,
    b: str,
    *,
    campaign: str | None = None,
    benchmarks: Sequence[str] = (),
    flips: int | None = None,
) -> SidesComparison:
    """Compare two models or campaigns on the docs that both have: ``b`` less ``a``, by paired tests, Holm-corrected.

    ``a`` and ``b`` are ``MODEL``, ``MODEL@REVISION``, ``campaign:NAME`` or ``campaign:NAME@RUN``, in ``campaign`` alone if given.
    The result has ``rows``, one for each benchmark, and ``flips``, the docs that only one side gets right.

    ``benchmarks`` are those to look at, all if empty. ``flips`` bounds the docs listed of each kind and benchmark; None lists all.
    Raises `core.errors.UserError` where a name matches nothing or the two share no benchmark.
    """
    import pandas as pd

    runs, records = runs_and_records(store, campaign)
    sides = [side(name, runs, records, campaign, argument) for name, argument in ((a, "A"), (b, "B"))]
    rows: list[dict[str, Any]] = []
    flipped: list[pd.DataFrame] = []
    only_a: list[str] = []
    only_b: list[str] = []
    for one, other in model_pairs(*sides):
        cells = [_wanted(each.models[model], benchmarks) for each, model in zip(sides, (one, other), strict=True)]
        shared = [name for name in cells[0] if name in cells[1]]
        only_a += [f"{other} (B) has no {name}, which {one} (A) has" for name in cells[0] if name not in shared]
        only_b += [f"{one} (A) has no {name}, which {other} (B) has" for name in cells[1] if name not in shared]
        pairs = {name: (cells[0][name], cells[1][name]) for name in shared}
        found = compare_cells(one, other, pairs, records, sample_reader(store))
        rows += found
        if flips != 0:
            flipped += [flipped_docs(store, row, records[row["fingerprint_a"]]["headline"], flips) for row in found]
    if not rows:
        raise UserError(_nothing(sides, benchmarks))
    return SidesComparison(
        sides[0],
        sides[1],
        rows=pd.DataFrame(rows, columns=list(ROW_COLUMNS)),
        flips=pd.concat(flipped) if flipped else pd.DataFrame(columns=list(FLIP_COLUMNS)),
        only_a=tuple(only_a),
        only_b=tuple(only_b),
    )


def sample_reader(store: Store) -> SampleReader:
    """Return a reader of cells' samples that keeps what it has read. It raises `core.errors.StoreError`."""
    return cache(lambda fingerprint, columns: store.samples_of_cells([fingerprint], columns))


def compare_cells(
    one: str, other: str, cells: Mapping[str, tuple[str, str]], records: Records, samples: SampleReader
) -> list[dict[str, Any]]:
    """Compare cells of a model ``one`` with cells of ``other``: the one answer to "did it get worse".

    ``cells`` has two fingerprints by benchmark, ``records`` their commit records. A row (`ROW_COLUMNS`) for each benchmark is
    ``other`` less ``one``, tested as `core.compare.paired` says. Holm's correction is over the benchmarks that can be tested; a
    cell against itself is no test. Raises `core.errors.StoreError` where samples cannot be read.
    """
    changed = {name: two for name, two in cells.items() if two[0] != two[1]}
    alike = {name: two for name, two in cells.items() if name not in changed}
    pairs = {row["benchmark"]: row for part in (changed, alike) for row in _pairs(part, records, samples)}
    rows = []
    for benchmark, (first, second) in cells.items():
        heads = [records[fingerprint]["headline"] for fingerprint in (first, second)]
        row = {
            "model_a": one,
            "model_b": other,
            "benchmark": benchmark,
            "metric": heads[1]["metric"],
            "score_a": _number(heads[0]["value"]),
            "score_b": _number(heads[1]["value"]),
            "higher_is_better": heads[1]["higher_is_better"],
            "settings": ", ".join(differing(records[first]["settings"], records[second]["settings"])),
            "fingerprint_a": first,
            "fingerprint_b": second,
        }
        row |= _turned(pairs[benchmark]) if benchmark in pairs else _untested(*heads)
        better = BETTER if (row["difference"] > 0) == row["higher_is_better"] else WORSE
        rows.append(row | {"change": better if is_significant(row) else ""})
    return rows


def score_intervals(
    cells: Mapping[str, str], records: Records, samples: SampleReader
) -> dict[str, tuple[float, float]]:
    """Return the intervals of cells' scores by benchmark, as a leaderboard has them; NaN where there are none."""
    board, values = _frames({name: (cell,) for name, cell in cells.items()}, records, samples)
    return {row["benchmark"]: (row["low"], row["high"]) for row in compare(values, board).board.to_dict("records")}


def regressions(
    rows: Iterable[Mapping[str, Any]],
    *,
    fail_below: Mapping[str, float],
    max_regression: float | None,
    significant: bool = False,
) -> list[str]:
    """Return the gates that do not hold, a sentence each.

    ``fail_below`` maps a benchmark, or "" for all whose higher scores are better, to the worst score that b may have.
    ``max_regression`` is how much worse than a's b's score may be; with ``significant`` only a difference that is significant after
    Holm's correction (5%) counts.
    """
    found = []
    for row in rows:
        sign = 1.0 if row["higher_is_better"] else -1.0
        name = f"{row['model_b']}, {row['benchmark']}"
        bound = fail_below.get(row["benchmark"], fail_below.get("") if sign > 0 else None)
        if bound is not None and math.isnan(row["score_b"]):
            found.append(f"{name}: there is no score ({row['metric']}) to hold against {bound:g} (--fail-below)")
        elif bound is not None and not sign * row["score_b"] >= sign * bound:
            found.append(f"{name}: {row['metric']} {row['score_b']:.4f} is worse than {bound:g} (--fail-below)")
        if max_regression is None:
            continue
        worse, certain = -sign * row["difference"], is_significant(row)
        if math.isnan(worse) and not significant:
            found.append(
                f"{name}: there are no two scores ({row['metric']}) to hold against {max_regression:g} (--max-regression)"
            )
        elif not worse <= max_regression + 1e-12 and (certain or not significant):
            found.append(
                f"{name}: {row['metric']} is {worse:.4f} worse, more than {max_regression:g} (--max-regression)"
            )
    return found


def check_bounds(fail_below: Sequence[str], benchmarks: Iterable[str]) -> dict[str, float]:
    """Return the bounds by benchmark of ``SCORE`` and ``BENCHMARK=SCORE``. Raises `core.errors.UserError` for any other."""
    known, bounds = sorted(set(benchmarks)), {}
    for text in fail_below:
        name, _, number = text.rpartition("=")
        try:
            bounds[name] = float(number)
        except ValueError:
            raise UserError(f"--fail-below {text!r}: use a number, or BENCHMARK=NUMBER") from None
        if name and name not in known:
            raise UserError(f"--fail-below {text!r}: no such benchmark is compared{nearest(name, known)}")
    return bounds


def _wanted(cells: Mapping[str, str], benchmarks: Sequence[str]) -> dict[str, str]:
    return {name: cell for name, cell in sorted(cells.items()) if not benchmarks or name in benchmarks}


def _nothing(sides: Sequence[Side], benchmarks: Sequence[str]) -> str:
    have = [sorted({name for cells in each.models.values() for name in cells}) for each in sides]
    lists = f"A has {', '.join(have[0])}; B has {', '.join(have[1])}"
    return (
        f"--benchmark {', '.join(benchmarks)}: not in both; {lists}"
        if benchmarks
        else f"no benchmark is in both: {lists}"
    )


def _pairs(cells: Mapping[str, tuple[str, str]], records: Records, samples: SampleReader) -> list[dict[Any, Any]]:
    if not cells:
        return []
    board, values = _frames(cells, records, samples)
    return compare(values, board).pairs.to_dict("records")


def _frames(
    cells: Mapping[str, tuple[str, ...]], records: Records, samples: SampleReader
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one or two sides as a leaderboard of the models a and b, and their samples."""
    import pandas as pd

    board, values = [], []
    for benchmark, fingerprints in cells.items():
        named = (records[fingerprint]["metadata"].get("cluster") for fingerprint in reversed(fingerprints))
        cluster = next(filter(None, named), None)
        columns = (*SAMPLE_COLUMNS, "doc") if cluster else SAMPLE_COLUMNS
        for label, fingerprint in zip((A, B), fingerprints, strict=False):
            head = records[fingerprint]["headline"]
            board.append(
                {
                    "benchmark": benchmark,
                    "model": label,
                    "fingerprint": fingerprint,
                    "cluster": cluster,
                    "score": head["value"],
                    **{name: head[name] for name in ("metric", "filter", "higher_is_better")},
                }
            )
            values.append(samples(fingerprint, columns).assign(benchmark=benchmark, model=label))
    return pd.DataFrame(board), pd.concat(values)


def _turned(pair: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a pair of `core.compare.compare`, whose a is the better one, as b less a."""
    flip = pair["model_a"] == A
    low, high = (0.0 - pair["high"], 0.0 - pair["low"]) if flip else (pair["low"], pair["high"])
    gained, lost = (pair["losses"], pair["wins"]) if flip else (pair["wins"], pair["losses"])
    return {
        "difference": 0.0 - pair["difference"] if flip else pair["difference"],
        "low": low,
        "high": high,
        "gained": gained,
        "lost": lost,
        **{name: pair[name] for name in ("p", "p_holm", "method", "docs", "left_out", "ties")},
    }


def _untested(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    alike = all(first[name] == second[name] for name in ("metric", "filter"))
    difference = _number(second["value"]) - _number(first["value"]) if alike else math.nan
    numbers = dict.fromkeys(("low", "high", "p", "p_holm"), math.nan)
    counts = {"docs": min(first["docs"], second["docs"]), **dict.fromkeys(("left_out", "gained", "lost", "ties"), 0)}
    return {"difference": difference, "method": "" if alike else "metrics differ", **numbers, **counts}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the names of settings that differ between two cells of one benchmark, other than which model it is."""
    found = []
    for key in sorted({*one, *other}):
        first, second = one.get(key), other.get(key)
        if first == second or (not prefix and key in DESCRIBED):
            continue
        if isinstance(first, dict) and isinstance(second, dict):
            found += differing(first, second, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}")
    return found
