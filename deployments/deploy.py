"""``steelyard deploy``: work pools, deployments, schedules and automations on a Prefect server, the same however often."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.types.entrypoint import EntrypointType

from core.campaign import CampaignSpec, absolute_paths
from core.errors import UserError
from core.tables import Row, Table, texts
from deployments.automations import TAG, check_alerts, register_automations
from deployments.schedules import describe, schedules_of
from deployments.server import server_client
from flows.campaign import campaign
from flows.dispatch import CAMPAIGN, GPU, RAY, live_workers
from flows.evaluate_model import evaluate_model
from flows.rescore import rescore

if TYPE_CHECKING:
    from prefect import Flow

POOL_DESCRIPTIONS = {
    CAMPAIGN: "Steelyard campaigns: each plans, sends its models to the other pools and publishes. Needs no GPU.",
    GPU: "Steelyard models that run lightweight: one GPU each. Start a worker on each GPU machine.",
    RAY: "Steelyard models that run distributed: each takes its GPUs from Ray.",
}
# For workers that `steelyard worker` has not started: what a run must have wherever it runs.
RUN_ENVIRONMENT = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "PREFECT_LOGGING_EXTRA_LOGGERS": "steelyard"}
# Or Prefect would ask git for the version of whatever repository this is called in.
SIMPLE: dict[str, Any] = {"version_type": "prefect:simple"}


@dataclass(frozen=True)
class Registered:
    """One deployment as the server has it: its full name, id, pool, its schedules in words, and the pool's live workers."""

    name: str
    id: UUID
    pool: str
    schedules: str
    workers: tuple[str, ...]


def deploy(specs: Sequence[CampaignSpec] = (), *, alerts: bool = False, notify: str | None = None) -> list[Registered]:
    """Register pools, the deployments that take any spec, one more for each of ``specs``, and the automations.

    Doing it again doubles nothing. ``alerts`` adds notifications through the notification block ``notify`` (``type/name``). Raises
    `core.errors.UserError` for a bad spec, schedule or block, or without a server that answers; nothing is registered then.
    """
    check_names(specs)
    schedules = [schedules_of(spec) for spec in specs]
    check_alerts(alerts, notify)
    with server_client() as client:
        register_automations(client, notify)
        for pool in POOL_DESCRIPTIONS:
            ensure_pool(client, pool)
        registered = [_register(client, deployment) for deployment in standard_deployments()]
        for spec, planned in zip(specs, schedules, strict=True):
            registered.append(_register(client, campaign_deployment(spec), planned, describe(spec.schedules)))
    return registered


def check_names(specs: Sequence[CampaignSpec]) -> None:
    """Raise `core.errors.UserError` where two specs, or a spec and the deployment for any spec, share a name."""
    for name, count in Counter(spec.name for spec in specs).items():
        if count > 1:
            raise UserError(
                f"name = {name!r}: {count} specs have it; a deployment is named after its campaign, give each its own"
            )
        if name == CAMPAIGN:
            raise UserError(
                f"name = {name!r}: the deployment that takes any spec has it; give this campaign another name"
            )


def ensure_pool(client: SyncPrefectClient, name: str) -> None:
    """Create the process work pool ``name`` where there is none; one that exists is left as it is, whatever its type."""
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        pool = WorkPoolCreate(
            name=name,
            type=ProcessWorker.type,
            description=POOL_DESCRIPTIONS[name],
            base_job_template=ProcessWorker.get_default_base_job_template(),
        )
        with suppress(ObjectAlreadyExists):  # another `steelyard deploy` was quicker
            client.create_work_pool(pool)


def standard_deployments() -> list[RunnerDeployment]:
    """Return the deployments that take any spec; docs/prefect.md lists them."""
    return [
        _deployment(campaign, CAMPAIGN, CAMPAIGN, "Any campaign: fill in the spec."),
        _deployment(rescore, "rescore", CAMPAIGN, "Score a campaign's stored answers again. Starts no engine."),
        _deployment(evaluate_model, GPU, GPU, "One model of a campaign, on one GPU. Campaigns start it."),
        _deployment(evaluate_model, RAY, RAY, "One model of a campaign, on a Ray cluster. Campaigns start it."),
    ]


def campaign_deployment(spec: CampaignSpec) -> RunnerDeployment:
    """Return the deployment ``campaign/<name>``, which runs ``spec`` by default, one run at a time."""
    # Schedules belong to the deployment; as a parameter they would look as if editing them did something.
    parameter = absolute_paths(spec).model_dump(mode="json", exclude_defaults=True, exclude={"schedules"})
    description = f"{len(spec.models)} models × {len(spec.benchmarks)} benchmarks into {parameter['results']}."
    return _deployment(
        campaign,
        spec.name,
        CAMPAIGN,
        description,
        parameters={"spec": parameter},
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
    )


def _deployment(flow: Flow[Any, Any], name: str, pool: str, description: str, **more: Any) -> RunnerDeployment:
    # A module path: a worker needs the installed package and no copy of the code.
    return RunnerDeployment.from_flow(
        flow,
        name=name,
        work_pool_name=pool,
        description=description,
        tags=[TAG],
        version=importlib.metadata.version("steelyard"),
        # The form has no strings for models and benchmarks, which the flow takes; its faults are better named than a schema's.
        enforce_parameter_schema=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
        job_variables={"env": RUN_ENVIRONMENT},
        **SIMPLE,
        **more,
    )


def _register(
    client: SyncPrefectClient,
    deployment: RunnerDeployment,
    schedules: list[DeploymentScheduleCreate] | None = None,
    described: str = "",
) -> Registered:
    """Create or update a deployment. Its schedules become ``schedules``; None leaves those that people made in the UI."""
    if schedules is None:
        deployment.model_fields_set.discard("schedules")  # an update sends what was set
    else:
        deployment.schedules = list(schedules)
        _remove_schedules_except(client, deployment.full_name, {str(schedule.slug) for schedule in schedules})
    identity: Any = deployment.apply()  # an awaitable only where a loop runs
    if schedules is None:
        made = len(client.read_deployment(identity).schedules)
        described = f"{made} made in the UI" if made else "–"
    pool = str(deployment.work_pool_name)
    return Registered(deployment.full_name, identity, pool, described, tuple(live_workers(client, pool)))


def _remove_schedules_except(client: SyncPrefectClient, name: str, slugs: set[str]) -> None:
    # Prefect updates schedules by slug and never removes one that is not mentioned.
    try:
        existing = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return
    for schedule in existing.schedules:
        if schedule.slug not in slugs:
            client.delete_deployment_schedule(existing.id, schedule.id)


def deployments_table(registered: Sequence[Registered]) -> Table:
    """Return a row for each deployment: its pool, when it starts, and its workers or the command that starts one."""
    rows = [
        Row((each.name, each.pool, each.schedules, ", ".join(each.workers) or f"none: steelyard worker {each.pool}"))
        for each in registered
    ]
    return Table("Registered with Prefect", texts("deployment", "pool", "schedules", "workers"), rows)
