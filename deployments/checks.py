"""What of a spec only vLLM and Prefect can judge, before anything is started."""

from __future__ import annotations

from core.campaign import CampaignSpec
from engines.session.arguments import check_arguments


def check_spec(spec: CampaignSpec) -> None:
    """Raise `core.errors.UserError` for engine arguments that vLLM does not know and schedules that Prefect cannot follow."""
    check_arguments(spec.models)
    if spec.schedules:
        from deployments.schedules import schedules_of  # imports Prefect

        schedules_of(spec)
