"""A campaign, on one screen: check → one subflow per model → leaderboard."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pandas as pd
from prefect import flow
from prefect.states import Cancelled, State

from core.campaign import CampaignSpec
from core.errors import SteelyardError
from core.results import new_run_id
from flows.dispatch import evaluate_models
from flows.heed import is_cancelling
from flows.loop import run_interruptible
from tasks.check import check
from tasks.publish import publish, watch_scores


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

    Args:
        spec: Models, benchmarks, and where results go.
    """
    plan = check(spec)
    run, started = new_run_id(), time.monotonic()
    states = run_interruptible(lambda: evaluate_models(spec, plan, run))
    failures = {model: failure_reason(state) for model, state in states.items() if not state.is_completed()}
    leaderboard = publish(spec, run, failures, time.monotonic() - started)
    watch_scores(spec, run)
    if is_cancelling():
        # A state returned is how Prefect lets a run end; who called gets `prefect.exceptions.CancelledRun`.
        return Cancelled(message="cancelled; what is answered is stored, the next run goes on from there")  # type: ignore[return-value]
    if failures:
        reasons = "; ".join(f"{model}: {reason}" for model, reason in failures.items())
        raise CampaignFailedError(f"{len(failures)} of {len(spec.models)} models failed: {reasons}", failures)
    return CampaignResult(run, spec.results, leaderboard)


def failure_reason(state: State) -> str:
    """Return why a subflow failed, without Prefect's preamble."""
    return str(state.message or state.name).removeprefix("Flow run encountered an exception: ")
