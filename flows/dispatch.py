"""Where models are evaluated: as subflows in this process, or as runs on the work pools of their engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

from httpx import HTTPError, Response
from prefect import get_client, tags
from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.client.schemas.objects import Worker, WorkerStatus
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Cancelling, Crashed, Failed, State

from core.campaign import CampaignSpec, absolute_paths
from core.errors import UserError
from core.log import log
from core.model.placement import Plan, PlannedModel
from core.planning.cost.expected import Expected
from flows.evaluate_model import Part, evaluate_model

CAMPAIGN, GPU, RAY = POOLS = ("campaign", "gpu", "ray")
HEARTBEAT = "prefect.flow-run.heartbeat"
MISSED_HEARTBEATS = 3
UNKNOWN_INTERVAL = 30  # seconds; Prefect's own default for a worker that names none
CONFLICT = 409  # parameters that do not fit the schema of the time of the deployment
POLL_SECONDS = 2.0  # the server announces no change
SILENT_SECONDS = 120.0  # four heartbeats; Prefect's automation is usually faster, but not the only one to notice
SERVER_SECONDS = 300.0  # a server that is being restarted ends no campaign
DOUBT_SECONDS = 12.0  # a little more than the heartbeat of our workers


async def evaluate_models(
    spec: CampaignSpec, plan: Plan, run: str, part: Part = "benchmarks", expected: Mapping[str, Expected] | None = None
) -> dict[str, State]:
    """Have every model of ``plan`` do its ``part`` at once, each in a run of its own. A failed one ends none of the others.

    ``expected`` is what each model's part will take. Raises `core.errors.UserError` where work pools are asked for in vain.
    """
    if await uses_pools(spec):
        spec = absolute_paths(spec if spec.fleet else spec.model_copy(update={"fleet": plan.fleet}))
        one = _on_pool
    else:
        one = _in_process
    known = expected or {}
    states = await asyncio.gather(
        *(one(spec, planned, run, part, known.get(planned.model.name)) for planned in plan.models)
    )
    return {planned.model.name: state for planned, state in zip(plan.models, states, strict=True)}


async def uses_pools(spec: CampaignSpec) -> bool:
    """Decide by the spec's ``dispatch``, and where that is "auto" by what is registered with the configured server."""
    asked = spec.dispatch == "work_pools"
    if spec.dispatch == "embedded":
        return False
    if get_current_settings().api.url is None:
        if asked:
            raise UserError("dispatch = 'work_pools': no Prefect server is configured; set PREFECT_API_URL")
        return False  # a temporary server has no workers
    async with get_client() as client:
        try:
            for pool in (GPU, RAY):
                await client.read_deployment_by_name(f"evaluate-model/{pool}")
        except ObjectNotFound as error:
            if asked:
                raise UserError(
                    "dispatch = 'work_pools': evaluate-model is not registered; run steelyard deploy"
                ) from error
            return False
    return True


def run_name(planned: PlannedModel, part: Part = "benchmarks") -> str:
    """Name of a model's run in the UI."""
    return f"{planned.model.name} · {planned.placement.engine}{'' if part == 'benchmarks' else f' · {part}'}"


def run_tags(spec: CampaignSpec, planned: PlannedModel) -> list[str]:
    """Tags of a model's run."""
    return [f"campaign:{spec.name}", f"model:{planned.model.name}", f"engine:{planned.placement.engine}"]


async def _in_process(
    spec: CampaignSpec, planned: PlannedModel, run: str, part: Part, expected: Expected | None
) -> State:
    subflow = evaluate_model.with_options(flow_run_name=run_name(planned, part))
    with tags(*flow_run.tags, *run_tags(spec, planned)):
        state: State = await subflow(spec, planned.model.name, run, part, expected, return_state=True)
    return state


async def _on_pool(spec: CampaignSpec, planned: PlannedModel, run: str, part: Part, expected: Expected | None) -> State:
    """Hand a model to the pool of its engine and wait for its run; once more where the machine that ran it is gone."""
    again = 0
    while True:
        state = await _handed_over(spec, planned, run, part, expected)
        if not state.is_crashed() or again == spec.policy.engine_restarts:
            return state
        again += 1
        log.warning(
            f"{planned.model.name}: {state.message}: handed over again, {again} of {spec.policy.engine_restarts} times; "
            "what it had answered is stored"
        )


async def _handed_over(
    spec: CampaignSpec, planned: PlannedModel, run: str, part: Part, expected: Expected | None
) -> State:
    """Hand a model to the pool of its engine and wait for its run. Cancelled, it has that run cancelled too."""
    pool = RAY if planned.placement.engine == "distributed" else GPU
    parameters: dict[str, Any] = {
        "spec": spec.model_dump(mode="json", exclude_unset=True),
        "model": planned.model.name,
        "run": run,
        "part": part,
        "expected": None if expected is None else asdict(expected),
    }
    async with get_client() as client:
        if not await has_worker(pool):
            return Failed(message=no_worker_message(pool))
        try:
            child = await arun_deployment(
                f"evaluate-model/{pool}",
                parameters=parameters,
                timeout=0,
                flow_run_name=run_name(planned, part),
                tags=run_tags(spec, planned),
            )
        except PrefectHTTPStatusError as error:
            if error.response.status_code != CONFLICT:
                raise
            return Failed(
                message=f"the registered evaluate-model takes no such spec: run steelyard deploy again ({error})"
            )
        log.info(f"{planned.model.name}: handed to work pool {pool}")
        try:
            return await _final_state(client, child.id, pool)
        except asyncio.CancelledError:
            await asyncio.shield(client.set_flow_run_state(child.id, Cancelling(message="its campaign was cancelled")))
            raise


async def _final_state(client: PrefectClient, run: UUID, pool: str) -> State:
    """Wait for a run's end. One that no worker can start is cancelled, one whose process is gone is set Crashed."""
    looked = heard = time.monotonic()
    while True:
        try:
            state = (await client.read_flow_run(run)).state
        except HTTPError as error:
            if time.monotonic() - heard > SERVER_SECONDS:
                raise
            log.warning(f"the Prefect server does not answer and is asked again: {type(error).__name__} {error}")
            await asyncio.sleep(POLL_SECONDS)
            continue
        heard = time.monotonic()
        if state and state.is_final():
            return state
        if state is None or state.is_scheduled() or state.is_pending():
            if not await has_worker(pool):
                await client.set_flow_run_state(run, Cancelled(message=no_worker_message(pool)))
                return Failed(message=no_worker_message(pool))
        elif time.monotonic() - looked > SILENT_SECONDS / 4:
            looked = time.monotonic()
            if (silent := await asyncio.to_thread(_silent_seconds, run)) > SILENT_SECONDS:
                gone = f"no heartbeat for {silent:.0f} seconds: its process or its machine is gone"
                await client.set_flow_run_state(run, Crashed(message=gone))
        await asyncio.sleep(POLL_SECONDS)


async def has_worker(pool: str) -> bool:
    """Return whether a worker serves ``pool``. One that was there a moment ago is waited for: machines and servers do stall."""
    deadline = time.monotonic() + DOUBT_SECONDS
    while not await asyncio.to_thread(_live_workers, pool, MISSED_HEARTBEATS):
        if time.monotonic() > deadline or not await asyncio.to_thread(_live_workers, pool, 5 * MISSED_HEARTBEATS):
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def _live_workers(pool: str, missed: int) -> list[str]:
    with get_client(sync_client=True) as client:
        return live_workers(client, pool, missed)


def _silent_seconds(run: UUID) -> float:
    with get_client(sync_client=True) as client:
        return silent_seconds(client, run)


def live_workers(client: SyncPrefectClient, pool: str, missed: int = MISSED_HEARTBEATS) -> list[str]:
    """Names of the workers of ``pool`` that have missed no more than ``missed`` heartbeats.

    The server itself is slow to call a worker offline. Raises `httpx.HTTPStatusError` where there is no such pool.
    """
    answer = client.request(
        "POST", "/work_pools/{work_pool_name}/workers/filter", path_params={"work_pool_name": pool}, json={}
    )
    return alive(Worker.model_validate_list(answer.json()), _sent(answer), missed)


def alive(workers: Iterable[Worker], now: datetime, missed: int = MISSED_HEARTBEATS) -> list[str]:
    """Sorted names of those of ``workers`` that have missed no more than ``missed`` heartbeats.

    A worker that the server calls offline counts only where more are forgiven than usual: it may just have stalled.
    """
    lenient = missed > MISSED_HEARTBEATS
    return sorted(
        worker.name
        for worker in workers
        if (lenient or worker.status is WorkerStatus.ONLINE) and _heard_of(worker, now, missed)
    )


def _heard_of(worker: Worker, now: datetime, missed: int) -> bool:
    patience = timedelta(seconds=missed * (worker.heartbeat_interval_seconds or UNKNOWN_INTERVAL))
    return worker.last_heartbeat_time is not None and now - worker.last_heartbeat_time <= patience


def no_worker_message(pool: str) -> str:
    """Return the message that no worker serves ``pool``, with the command that starts one."""
    return f"work pool `{pool}` has no live worker: start one with `steelyard worker {pool}`"


def silent_seconds(client: SyncPrefectClient, run: UUID) -> float:
    """Seconds since the last heartbeat of a flow run, by the server's clock; 0 where it never sent one."""
    heartbeats = {
        "event": {"name": [HEARTBEAT]},
        "resource": {"id": [f"prefect.flow-run.{run}"]},
        "order": "DESC",
    }
    answer = client.request("POST", "/events/filter", json={"filter": heartbeats, "limit": 1})
    events = answer.json()["events"]
    if not events:
        return 0.0
    return (_sent(answer) - datetime.fromisoformat(events[0]["occurred"])).total_seconds()


def _sent(answer: Response) -> datetime:
    """Return when the server answered. Heartbeats carry its time too, and this machine's clock may be off."""
    sent = answer.headers.get("date")
    return parsedate_to_datetime(sent) if sent else datetime.now(UTC)
