"""What a campaign will take, told before it runs: for the queue, and to be compared with what it took."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from core.campaign import CampaignSpec, FleetSpec, ModelSpec
from core.errors import StoreError
from core.log import say, warn
from core.model.placement import Plan, PlannedModel
from core.planning.cost.estimate import plan_estimate
from core.planning.cost.expected import Expected, expectations, totals
from core.planning.cost.history import History, read_history
from core.planning.plan import check_campaign, plan_model
from core.planning.schedule.fleet_file import group_of, nodes_of
from core.results import open_store
from core.tables import duration
from engines.session.arguments import check_arguments

MOST_CELLS = 500  # of the store that are learnt from: the campaign waits for it


@dataclass(frozen=True)
class Forecast:
    """What is expected of each model, by name, and of the whole campaign (`core.planning.cost.expected.totals`)."""

    models: dict[str, Expected] = field(default_factory=dict)
    whole: dict[str, Any] | None = None


@task(task_run_name="foretell", cache_policy=NO_CACHE)
def foretell(spec: CampaignSpec, plan: Plan) -> Forecast:
    """Estimate every planned model by the store's history. A store that cannot be read leaves the priors."""
    group = group_of(plan.fleet)
    try:
        history = read_history(open_store(spec.results), group.kind, MOST_CELLS)
    except StoreError as error:
        warn(f"nothing is learnt from past runs: {error}")
        history = History()
    estimate = plan_estimate(spec, plan, history)
    low, middle, high = estimate.makespan
    say(f"expected to take {duration(middle)} ({duration(low)} – {duration(high)}) if nothing were stored yet")
    return Forecast(expectations(estimate, nodes_of([group]), time.time()), totals(estimate))


@task(name="route", task_run_name="route {model.name}", cache_policy=NO_CACHE)
async def route(spec: CampaignSpec, model: ModelSpec, fleet: FleetSpec) -> PlannedModel:
    """Decide the engine and the GPUs of one model; the reason goes to the log."""
    planned = await asyncio.to_thread(plan_model, spec, model, fleet)
    say(f"{model.name}: {planned.placement.reason}")
    return planned


@task(task_run_name="check", cache_policy=NO_CACHE)
def check(spec: CampaignSpec) -> Plan:
    """Check engine arguments, benchmarks, checkpoints, placements and the results store. Raises `core.errors.UserError`."""
    check_arguments(spec.models)
    return check_campaign(spec)
