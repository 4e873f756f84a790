"""The work pools: their names, and which of their workers live."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from uuid import UUID

from httpx import Response
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import Worker, WorkerStatus

CAMPAIGN, GPU, RAY = POOLS = ("campaign", "gpu", "ray")
HEARTBEAT = "prefect.flow-run.heartbeat"
MISSED_HEARTBEATS = 3
UNKNOWN_INTERVAL = 30  # seconds; Prefect's own default for a worker that does not say


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

    Who the server calls offline counts only where more are forgiven than usual: it does so to those that stall, too.
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
    """Say that nobody serves ``pool``, and which command does."""
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
    """When the server answered. Heartbeats carry its time too, and this machine's clock may be off."""
    sent = answer.headers.get("date")
    return parsedate_to_datetime(sent) if sent else datetime.now(UTC)
