"""Running a campaign, or scoring it again, from a terminal: check first, then the flow, on the embedded or configured server."""

from __future__ import annotations

import sys

from core.campaign import CampaignSpec
from core.errors import StoreError
from core.planning.plan import check_campaign
from core.results import open_store
from deployments.console import print_leaderboard, terminal
from deployments.live import shown
from engines.session.arguments import check_arguments
from flows.prefect_server import embedded_server


def run_campaign(spec: CampaignSpec, only: list[str] | None = None) -> int:
    """Run ``spec``, or ``only`` some of its models, and print its leaderboard. Returns 0, or 1 where a model failed.

    Raises `core.errors.UserError` for bad input, before any engine starts.
    """
    check_spec(spec)
    check_campaign(spec)
    with embedded_server() as server:
        from flows.campaign import CampaignFailedError, campaign

        server.result()
        try:
            with shown(terminal()):
                campaign(spec, only)
        except CampaignFailedError as error:
            try:
                print_leaderboard(open_store(spec.results), spec.name)
            except StoreError as unread:
                print(f"steelyard: no leaderboard: {unread}", file=sys.stderr)
            for model, reason in error.failures.items():
                print(f"steelyard: model {model!r} failed: {reason}", file=sys.stderr)
            return 1
    print_leaderboard(open_store(spec.results), spec.name)
    return 0


def rerun_failed(spec: CampaignSpec) -> int:
    """Run what failed in the last run of ``spec`` once more. Returns as `run_campaign`; 0 where nothing had failed."""
    from core.upkeep.recompute import find_failed, reopen

    check_spec(spec)
    plan = check_campaign(spec)
    failed = find_failed(spec)
    if not failed.models:
        print(f"steelyard: nothing failed in the last run of {spec.name!r}", file=sys.stderr)
        return 0
    reopen(spec, plan, failed)
    return run_campaign(spec, list(failed.models))


def rescore_campaign(spec: CampaignSpec) -> None:
    """Score the stored samples of ``spec`` again and print the leaderboard. Raises `core.errors.UserError` for bad input."""
    check_spec(spec)
    check_campaign(spec)
    with embedded_server() as server:
        from flows.rescore import rescore

        server.result()
        done = rescore(spec)
    print_leaderboard(open_store(spec.results), spec.name)
    print(
        f"{len(done.rescored)} scored again, {len(done.unchanged)} unchanged, {len(done.missing)} without stored samples",
        file=sys.stderr,
    )


def check_spec(spec: CampaignSpec) -> None:
    """Raise `core.errors.UserError` for engine arguments that vLLM does not know and schedules that Prefect cannot follow."""
    check_arguments(spec.models)
    if spec.schedules:
        from deployments.schedules import schedules_of  # imports Prefect

        schedules_of(spec)
