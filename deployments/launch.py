"""Running a campaign from a terminal: check first, then flows on the embedded or the configured Prefect server."""

from __future__ import annotations

import sys

from core.campaign import CampaignSpec
from core.plan import check_campaign
from core.results import open_store
from deployments.console import print_leaderboard, terminal
from deployments.embedded import embedded_server
from deployments.live import shown


def run_campaign(spec: CampaignSpec) -> int:
    """Run ``spec`` and print its leaderboard. Returns 0, or 1 where a model failed.

    Raises `core.errors.UserError` for bad input, before any engine starts.
    """
    check_campaign(spec)
    with embedded_server() as server:
        from flows.campaign import CampaignFailedError, campaign

        server.result()
        try:
            with shown(terminal()):
                campaign(spec)
        except CampaignFailedError as error:
            print_leaderboard(open_store(spec.results), spec.name)
            for model, reason in error.failures.items():
                print(f"steelyard: model {model!r} failed: {reason}", file=sys.stderr)
            return 1
    print_leaderboard(open_store(spec.results), spec.name)
    return 0
