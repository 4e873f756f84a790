from datetime import UTC, datetime, timedelta
from uuid import uuid4

from prefect.client.schemas.objects import Worker, WorkerStatus

from flows.dispatch import alive, no_worker_message

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def worker(name: str, silent: float | None, status: WorkerStatus = WorkerStatus.ONLINE) -> Worker:
    heard = None if silent is None else NOW - timedelta(seconds=silent)
    return Worker(
        name=name, work_pool_id=uuid4(), last_heartbeat_time=heard, heartbeat_interval_seconds=10, status=status
    )


def test_a_worker_lives_as_long_as_it_misses_no_more_than_three_heartbeats() -> None:
    workers = [worker("b", 29), worker("a", 1), worker("gone", 31), worker("never heard of", None)]
    assert alive(workers, NOW) == ["a", "b"]


def test_one_that_stalled_is_remembered_where_more_is_forgiven() -> None:
    stalled = [worker("a", 100, WorkerStatus.OFFLINE)]
    assert alive(stalled, NOW) == []
    assert alive(stalled, NOW, missed=15) == ["a"]
    assert alive([worker("long gone", 151)], NOW, missed=15) == []


def test_a_pool_without_a_worker_is_told_how_to_get_one() -> None:
    assert no_worker_message("gpu") == "work pool `gpu` has no live worker: start one with `steelyard worker gpu`"
