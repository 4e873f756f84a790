"""A campaign, on one screen: check → one subflow per model → leaderboard."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pandas as pd
from prefect import flow
from prefect.client.schemas.objects import State

from core.campaign import CampaignSpec
from core.errors import SteelyardError
from core.plan import Plan
from core.results import new_run_id
from flows.evaluate_model import BUDGET, evaluate_model
from flows.loop import run_interruptible
from tasks.check import check
from tasks.publish import publish
from tasks.slots import GpuBudget


class CampaignFailedError(SteelyardError):
    """At least one model failed; every other result is stored. ``failures`` maps model → reason."""

    def __init__(self, message: str, failures: dict[str, str]) -> None:
        super().__init__(message)
        self.failures = failures


@dataclass(frozen=True)
class CampaignResult:
    """What a campaign leaves: its run id in the store, and the leaderboard as a frame."""

    run: str
    results: str
    leaderboard: pd.DataFrame


@flow(flow_run_name="{spec.name}", persist_result=False)
def campaign(spec: CampaignSpec) -> CampaignResult:
    """Evaluate every model of the spec on every benchmark; a mapping with the spec's fields will do.

    Raises `core.errors.UserError` for bad input before any engine starts, and `CampaignFailedError` where models failed.
    """
    plan = check(spec)
    run, started = new_run_id(), time.monotonic()
    states = run_interruptible(lambda: evaluate_models(spec, plan, run))
    failures = {model: failure_reason(state) for model, state in states.items() if not state.is_completed()}
    leaderboard = publish(spec, run, failures, time.monotonic() - started)
    if failures:
        reasons = "; ".join(f"{model}: {reason}" for model, reason in failures.items())
        raise CampaignFailedError(f"{len(failures)} of {len(spec.models)} models failed: {reasons}", failures)
    return CampaignResult(run, spec.results, leaderboard)


async def evaluate_models(spec: CampaignSpec, plan: Plan, run: str) -> dict[str, State]:
    """Run one subflow per model, all at once, on one GPU budget. A failed one ends none of the others."""
    BUDGET.set(GpuBudget(plan.fleet.nodes * plan.fleet.gpus))
    states = await asyncio.gather(*(evaluate_model(spec, model.name, run, return_state=True) for model in spec.models))
    return {model.name: state for model, state in zip(spec.models, states, strict=True)}


def failure_reason(state: State) -> str:
    """Return why a subflow failed, without Prefect's preamble."""
    return str(state.message or state.name).removeprefix("Flow run encountered an exception: ")
