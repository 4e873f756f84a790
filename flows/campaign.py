"""A campaign, on one screen: check → one subflow per model → leaderboard."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pandas as pd
from prefect.settings import get_current_settings
from prefect.states import Cancelled, State

from core.benchmark.prepare import judges_of
from core.campaign import CampaignSpec
from core.errors import SteelyardError, StoreError
from core.log import log
from core.model.placement import Plan
from core.redact import redact
from core.results import new_run_id, open_store
from core.upkeep.status import failed_cells
from engines.control import CANCELLED
from flows.canary import check_engines
from flows.dispatch import evaluate_models
from flows.failures import CellsFailedError
from flows.interrupt import is_cancelling, run_interruptible
from flows.login import log_in
from flows.spec_flow import spec_flow
from tasks.plan import check, forecast
from tasks.publish import carry_over, publish, publish_report, watch_scores

if get_current_settings().api.url is None:
    from flows.prefect_server import TemporaryServer  # slow to import, and of no use to workers

    TemporaryServer()  # Prefect keeps one instance for all that name no port, and would make its own
log_in()


class CampaignFailedError(SteelyardError):
    """At least one model failed; every other result is stored.

    ``failures`` maps model → reason. ``cells`` maps model → benchmark → its own reason, where single cells failed.
    """

    def __init__(self, message: str, failures: dict[str, str], cells: dict[str, dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.failures = failures
        self.cells = cells or {}


@dataclass(frozen=True)
class CampaignResult:
    """What a campaign leaves: its run id in the store, and the leaderboard as a frame."""

    run: str
    results: str
    leaderboard: pd.DataFrame


@spec_flow(flow_run_name="{spec.name}", persist_result=False)
def campaign(spec: CampaignSpec, only: list[str] | None = None) -> CampaignResult:
    """Evaluate every model of the spec on every benchmark; a mapping with the spec's fields or its file's path will do.

    Raises `core.errors.UserError` for bad input before any engine starts, and `CampaignFailedError` where models failed.

    Args:
        spec: Models, benchmarks, and where results go.
        only: Names of the models to evaluate; the others keep what the campaign's last run asked for. All when left out.
    """
    plan = check(spec)
    run, started = new_run_id(), time.monotonic()
    asked = plan if only is None else carry_over(spec, plan, run, only)
    expected = forecast(spec, asked)
    states = run_interruptible(lambda: evaluate_models(spec, asked, run, expected=expected.models))
    failures = {model: failure_reason(state) for model, state in states.items() if not state.is_completed()}
    judges = tuple(p for p in plan.models if p.model.name in judges_of(spec) and p.model.name not in failures)
    if judges and not is_cancelling():
        verdicts = run_interruptible(lambda: evaluate_models(spec, Plan(plan.fleet, judges), run, "judge"))
        failures |= {
            model: f"as judge: {failure_reason(state)}" for model, state in verdicts.items() if not state.is_completed()
        }
    try:
        engines = None if is_cancelling() else check_engines(spec, plan, run)
        leaderboard = publish(spec, run, failures, time.monotonic() - started, engines, expected.whole)
        publish_report(spec, run)
        watch_scores(spec, run)
    except StoreError as error:
        if not failures:
            raise
        raise failed(spec, run, failures) from error  # the failures name the cause, and where the answers are
    if is_cancelling():
        # A state returned is how Prefect lets a run end; its caller gets `prefect.exceptions.CancelledRun`.
        return Cancelled(message=CANCELLED)  # type: ignore[return-value]
    if failures:
        raise failed(spec, run, failures)
    return CampaignResult(run, spec.results, leaderboard)


def failed(spec: CampaignSpec, run: str, failures: dict[str, str]) -> CampaignFailedError:
    """Sum up why models failed, by what their states say and by what the store knows of ``run``'s cells."""
    reasons = "; ".join(f"{model}: {reason}" for model, reason in failures.items())
    message = f"{len(failures)} of {len(spec.models)} models failed: {reasons}"
    try:
        runs = [each for each in open_store(spec.results).campaigns(spec.name) if each["run"] == run]
    except StoreError as error:
        log.warning(f"the store does not say which cells failed: {error}")
        runs = []
    return CampaignFailedError(message, failures, failed_cells(runs[-1]) if runs else None)


def failure_reason(state: State) -> str:
    """Return why a subflow failed, without Prefect's preamble and without secrets."""
    message = redact(str(state.message or state.name)).removeprefix("Flow run encountered an exception: ")
    return message.removeprefix(f"{CellsFailedError.__name__}: ")
