"""Results as experiment trackers (MLflow, Weights & Biases) take them: one run per run of a campaign and model. Pure."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from core.compare.sides import Records
from core.errors import UserError
from core.planning.cost.expected import price_of
from core.redact import redact_all
from core.tables import plain_rows

if TYPE_CHECKING:
    import pandas as pd

OUTSIDE = re.compile(r"[^\w\-. ]", re.ASCII)  # what MLflow refuses in a name; both trackers get the same names
LONGEST_NAME, LONGEST_VALUE = 250, 500  # characters of a param that every MLflow server takes
DEGREES = ("tensor_parallel", "pipeline_parallel", "replicas")
PER_CELL = ("docs", "tokens_per_second", "seconds", "gpus", "gpu_seconds", "prompt_tokens", "completion_tokens")
NOT_PARAMS = frozenset({"benchmark", "datasets", "harness"})  # settings that are no single value of a model

PROJECT = "steelyard"  # where neither an option nor the tracker's own variable names one

Name = tuple[str, ...]  # parts of one
Value = TypeVar("Value")


@dataclass(frozen=True)
class TrackedRun:
    """One model of one run of a campaign. ``started`` and ``ended`` are unix seconds, of the cells it consists of."""

    key: str  # 32 hex digits, the same whenever the same is exported
    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    scores: Sequence[Mapping[str, Any]]  # rows of `core.store.schema.SCORES`, with ``benchmark`` and ``model``
    cells: Mapping[str, str]  # benchmark → fingerprint
    started: float
    ended: float
    failed: bool  # the campaign says that the model did


def tracked_runs(
    board: pd.DataFrame, scores: pd.DataFrame, runs: Iterable[Mapping[str, Any]], records: Records, store: str
) -> list[TrackedRun]:
    """Turn a leaderboard with sizes (`core.board.select.with_facts`) and its scores table into what trackers take, without secrets.

    ``runs`` are the manifests of the campaigns' runs that the leaderboard shows, ``records`` commit records by fingerprint, and
    ``store`` tells results that no campaign asked for from those of another store.
    """
    manifests = {run["campaign"]: redact_all(run) for run in runs}
    by_cell: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in plain_rows(scores.drop_duplicates(["fingerprint", "task", "metric", "filter"])):
        by_cell[row["fingerprint"]].append(redact_all(row))
    # Of results that no campaign asked for there may be several of one benchmark: the newest counts.
    groups: dict[tuple[str | None, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in plain_rows(board.sort_values(["benchmark", "committed"])):
        groups[row["campaign"], row["model"]][row["benchmark"]] = row
    return [
        _tracked(model, list(rows.values()), by_cell, manifests.get(campaign or "", {}), records, store)
        for (campaign, model), rows in sorted(groups.items(), key=lambda item: (item[0][0] or "", item[0][1]))
    ]


def _tracked(
    model: str,
    asked: Sequence[Mapping[str, Any]],
    by_cell: Mapping[str, Sequence[Mapping[str, Any]]],
    run: Mapping[str, Any],
    records: Records,
    store: str,
) -> TrackedRun:
    rows: list[dict[str, Any]] = redact_all(asked)
    own = [redact_all(records[row["fingerprint"]]) for row in rows]
    shown = rows[0]["model"]
    table = [
        {**score, "benchmark": row["benchmark"], "model": shown}
        for row in rows
        for score in by_cell[row["fingerprint"]]
    ]
    price = price_of(run)
    identity = (run["campaign"], run["run"], model) if run else (store, "", model)
    ended = [datetime.fromisoformat(record["committed"]).timestamp() for record in own]
    began = [end - (record["metadata"].get("seconds") or 0.0) for end, record in zip(ended, own, strict=True)]
    return TrackedRun(
        key=hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32],
        name=f"{run['campaign']}/{shown}" if run else shown,
        params=_named(_params(rows, own, run), _param),
        metrics=_named([*_score_metrics(table), *_cell_metrics(rows, price)], float),
        tags=dict(_tags(shown, run, records)),
        scores=table,
        cells={row["benchmark"]: row["fingerprint"] for row in rows},
        started=min(began),
        ended=max(ended),
        failed=shown in (run.get("failures") or {}),
    )


def _params(
    rows: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]], run: Mapping[str, Any]
) -> Iterator[tuple[Name, Any]]:
    settings = [{k: v for k, v in record["settings"].items() if k not in NOT_PARAMS} for record in records]
    for name in dict.fromkeys(name for each in settings for name in each):
        yield (name,), _together(each.get(name) for each in settings)
    for name in ("engine", *DEGREES, "weight_gb", "reason"):
        yield (name,), _together(row[name] for row in rows)
    yield ("vllm_version",), _together(record["metadata"].get("vllm_version") for record in records)
    for name, version in (run.get("versions") or {}).items():
        yield ("version", name), version
    for row, record in zip(rows, records, strict=True):
        benchmark = record["settings"].get("benchmark") or {}
        yield (row["benchmark"], "fingerprint"), row["fingerprint"]
        yield (row["benchmark"], "metric"), f"{row['metric']},{row['filter']}"
        for name in ("limit", "seed", "sampling"):
            yield (row["benchmark"], name), benchmark.get(name)
        for name in ("version", "num_fewshot", "repeats", "harness"):
            tasks = (benchmark.get("tasks") or {}).values()
            yield (row["benchmark"], name), _together(task.get(name) for task in tasks)


def _together(values: Iterable[Any]) -> Any:
    """Return the value that all share, or each of the different ones."""
    known = {_text(value): value for value in values if value is not None}
    return next(iter(known.values())) if len(known) == 1 else ", ".join(sorted(known)) or None


def _score_metrics(table: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Name, float | None]]:
    for row in table:
        task = () if row["task"] == row["benchmark"] else (row["task"],)
        filters = () if row["filter"] == "none" else (row["filter"],)
        yield (row["benchmark"], *task, row["metric"], *filters), row["value"]
        yield (row["benchmark"], *task, f"{row['metric']}_stderr", *filters), row["stderr"]


def _cell_metrics(rows: Iterable[Mapping[str, Any]], price: float | None) -> Iterator[tuple[Name, float | None]]:
    for row in rows:
        seconds = row["gpu_seconds"]
        for name in PER_CELL:
            yield (row["benchmark"], name), row[name]
        yield (row["benchmark"], "cost"), None if price is None or seconds is None else price * seconds / 3600.0


def _tags(model: str, run: Mapping[str, Any], records: Records) -> Iterator[tuple[str, str]]:
    yield "model", model
    if not run:
        return
    cells = [cell for each in run["models"] if each["model"] == model for cell in each["cells"].values()]
    yield "campaign", run["campaign"]
    yield "run", run["run"]
    yield "partial", str(not all(cell in records for cell in cells)).lower()
    if reason := (run.get("failures") or {}).get(model):
        yield "failure", _cut(reason)


def _named(values: Iterable[tuple[Name, Any]], form: Callable[[Any], Value]) -> dict[str, Value]:
    """Return known values by names that both trackers take; where two come to one name the second is numbered."""
    found: dict[str, Value] = {}
    for parts, value in values:
        if value is None or value == {} or (isinstance(value, float) and not math.isfinite(value)):
            continue
        name = plain = "/".join(OUTSIDE.sub("_", part).strip(".") or "_" for part in parts)[: LONGEST_NAME - 4]
        number = 1
        while name in found:
            number += 1
            name = f"{plain} {number}"
        found[name] = form(value)
    return found


def _param(value: Any) -> str:
    return _cut(_text(value))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def missing(tracker: str, error: ImportError) -> UserError:
    """Return the error that says what to install."""
    return UserError(f'--format {tracker!r}: its client is not installed ({error}); pip install "steelyard[{tracker}]"')
