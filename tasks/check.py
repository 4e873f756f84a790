"""First task of a campaign: everything that can be wrong before a GPU is held."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from core.campaign import CampaignSpec
from core.plan import Plan, check_campaign
from engines.vllm_arguments import check_arguments


@task(task_run_name="check", cache_policy=NO_CACHE)
def check(spec: CampaignSpec) -> Plan:
    """Check engine arguments, benchmarks, checkpoints, placements and the results store. Raises `core.errors.UserError`."""
    check_arguments(spec.models)
    return check_campaign(spec)
