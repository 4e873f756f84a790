"""Routing task: what a model is and where it runs."""

from __future__ import annotations

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE

from core.campaign import CampaignSpec, FleetSpec, ModelSpec
from core.plan import PlannedModel, plan_model
from tasks.say import say


@task(name="route", task_run_name="route {model.name}", cache_policy=NO_CACHE)
async def route(spec: CampaignSpec, model: ModelSpec, fleet: FleetSpec) -> PlannedModel:
    """Decide the engine and the GPUs of one model; the reason goes to the log."""
    planned = await asyncio.to_thread(plan_model, spec, model, fleet)
    say(f"{model.name}: {planned.placement.reason}")
    return planned
