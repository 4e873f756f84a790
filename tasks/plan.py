"""Before a GPU is held: the campaign is checked, what it will take is forecast, and each model is placed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from core.campaign import CampaignSpec, FleetSpec
from core.errors import StoreError
from core.log import log
from core.model.fleet import resolve_fleet
from core.model.placement import Plan, PlannedModel
from core.planning.cost.estimate import plan_estimate
from core.planning.cost.expected import Expected, expectations, totals
from core.planning.cost.history import History, read_history
from core.planning.plan import check_campaign, plan_model
from core.planning.schedule.fleet_file import group_of, nodes_of
from core.results import open_store
from core.tables import duration
from engines.session.arguments import check_arguments
from tasks.steps import step

MOST_CELLS = 500  # of the store that are learnt from: the campaign waits for it


@dataclass(frozen=True)
class Forecast:
    """What is expected of each model, by name, and of the whole campaign (`core.planning.cost.expected.totals`)."""

    models: dict[str, Expected] = field(default_factory=dict)
    whole: dict[str, Any] | None = None


@task(task_run_name="check", cache_policy=NO_CACHE)
def check(spec: CampaignSpec) -> Plan:
    """Check engine arguments, benchmarks, checkpoints, placements and the results store. Raises `core.errors.UserError`."""
    check_arguments(spec.models)
    return check_campaign(spec)


@task(task_run_name="forecast", cache_policy=NO_CACHE)
def forecast(spec: CampaignSpec, plan: Plan) -> Forecast:
    """Estimate every planned model by the store's history. A store that cannot be read leaves the priors."""
    group = group_of(plan.fleet)
    try:
        history = read_history(open_store(spec.results), group.kind, MOST_CELLS)
    except StoreError as error:
        log.warning(f"nothing is learnt from past runs: {error}")
        history = History()
    estimate = plan_estimate(spec, plan, history)
    low, middle, high = estimate.makespan
    log.info(f"expected to take {duration(middle)} ({duration(low)} – {duration(high)}) if nothing were stored yet")
    return Forecast(expectations(estimate, nodes_of([group]), time.time()), totals(estimate))


@step("place", "{model}")
async def place(spec: CampaignSpec, model: str) -> tuple[FleetSpec, PlannedModel]:
    """Decide the engine and the GPUs of the campaign's model named ``model``, on the fleet as it is here; the reason is logged."""
    fleet = resolve_fleet(spec.fleet)
    (chosen,) = (each for each in spec.models if each.name == model)
    planned = await asyncio.to_thread(plan_model, spec, chosen, fleet)
    log.info(f"{model}: {planned.placement.reason}")
    return fleet, planned
