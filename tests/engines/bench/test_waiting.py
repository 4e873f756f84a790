"""Waiting in turn for devices. No engine is started."""

import asyncio
import secrets
from pathlib import Path

import pytest

from core.planning.schedule.turns import Demand
from engines.bench.waiting import hold
from engines.distributed.cluster import ClusterSpec, attach, local_clusters
from engines.host.queue import Ticket
from engines.host.slots import DevicePool
from tests.waiting import until


@pytest.fixture
def kind() -> str:
    return f"test-{secrets.token_hex(4)}"


def test_no_device_is_given_out_twice(kind: str) -> None:
    pool = DevicePool(kind, ("0", "1", "2"))

    async def main() -> int:
        taken, most = set[int](), 0

        async def job(gpus: int) -> None:
            nonlocal most
            async with hold(Ticket(pool, Demand("job", gpus))) as held:
                assert not taken & set(held.devices)
                taken.update(held.devices)
                most = max(most, len(taken))
                await asyncio.sleep(0)
                taken.difference_update(held.devices)

        await asyncio.gather(*(job(gpus) for gpus in (1, 2, 3, 1, 2, 1, 3, 1)))
        return most

    assert asyncio.run(main()) == 3


def test_a_cancelled_wait_lets_the_next_one_start(kind: str) -> None:
    pool = DevicePool(kind, ("0", "1"))

    async def main() -> tuple[int, ...]:
        async with hold(Ticket(pool, Demand("first", 1))):
            gang = asyncio.create_task(hold(Ticket(pool, Demand("gang", 2))).__aenter__())
            await asyncio.sleep(0)
            small = asyncio.create_task(hold(Ticket(pool, Demand("small", 1))).__aenter__())
            await asyncio.sleep(0)
            assert not small.done()
            gang.cancel()
            return (await small).devices

    assert asyncio.run(main()) == (1,)


def test_a_loaded_service_is_joined_and_an_unused_one_makes_room() -> None:
    cluster = attach(ClusterSpec((0, 1), 2, "cpu"), "loaded-model")
    cluster.leave(600)
    pool = DevicePool("cpu", ("0", "1"))

    async def main() -> None:
        async with hold(Ticket(pool, Demand("again", 2)), service="loaded-model", idle_seconds=600) as held:
            assert held.devices == (0, 1)
            assert held.descriptors == ()
            until(lambda: [living.clients for living in local_clusters()] == [1])
        async with hold(Ticket(pool, Demand("another", 1))) as held:
            assert held.devices == (0,)
            assert local_clusters() == []

    asyncio.run(main())


def test_whoever_is_next_has_its_weights_read_ahead(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[Path]] = []
    monkeypatch.setattr("engines.bench.waiting.read_ahead", read.append)
    pool = DevicePool(kind, ("0",))
    first, second, third = (tmp_path / name for name in "abc")

    async def job(weights: Path, until: int) -> None:
        async with hold(Ticket(pool, Demand(weights.name, 1)), weights=[weights]), asyncio.timeout(20):
            while len(read) < until:
                await asyncio.sleep(0.01)

    async def main() -> None:
        await asyncio.gather(job(first, 1), job(second, 2), job(third, 2))

    asyncio.run(main())
    assert read == [[second], [third]], "who gets a device at once needs nothing read ahead"
