"""Loading beside an engine that is at its end. Engines are scripted."""

from __future__ import annotations

import asyncio
import logging
import secrets

import pytest

from core.errors import EngineDiedError
from core.request import Generate, Generated, Sampling
from core.schedule.turns import Demand
from engines.engine import EngineInfo
from engines.slots import DevicePool, Held, holders
from engines.tickets import Ticket
from tasks.ahead import loaded_ahead
from tasks.slots import hold
from tests.flows.scripted import answer
from tests.scripted_engine import ScriptedEngine


@pytest.fixture
def pool() -> DevicePool:
    return DevicePool(f"test-{secrets.token_hex(4)}", ("0",))


@pytest.fixture
def running(pool: DevicePool) -> Held:
    held = Ticket(pool, Demand("before", 1)).take()
    assert held is not None
    return held


class Broken(ScriptedEngine):
    def open(self) -> EngineInfo:
        raise EngineDiedError("no memory")


async def wait_until_open(engine: ScriptedEngine) -> None:
    async with asyncio.timeout(20):
        while not engine.opened:
            await asyncio.sleep(0.01)


def test_an_engine_is_loaded_before_its_device_is_free_and_given_afterwards(pool: DevicePool, running: Held) -> None:
    built = ScriptedEngine(answer)

    async def job() -> list[str]:
        async with (
            hold(Ticket(pool, Demand("after", 1)), ahead=True) as held,
            loaded_ahead(held, lambda: built, "after") as engine,
        ):
            assert engine is not None
            assert [holder.label for holder in holders(pool)] == ["after"]
            assert engine.open().engine == "scripted"
            found = engine.run([Generate("a/0/0/0", "2 + 2 =", Sampling())])
            assert engine.stats() == built.stats()
            return [response.text for response in found if isinstance(response, Generated)]

    async def main() -> list[str]:
        after = asyncio.create_task(job())
        await asyncio.sleep(0.5)  # nothing happens
        assert built.opened == 0
        await asyncio.to_thread(running.end_soon)
        await wait_until_open(built)
        assert [holder.label for holder in holders(pool)] == ["before"]
        assert not after.done()
        running.release()
        return await after

    assert asyncio.run(main()) == [" 4"]
    assert (built.opened, built.closed) == (1, 1)
    assert holders(pool) == []


def test_what_cannot_be_loaded_ahead_gets_its_device_all_the_same(
    pool: DevicePool, running: Held, caplog: pytest.LogCaptureFixture
) -> None:
    running.end_soon()
    broken = Broken(answer)

    async def main() -> None:
        async with hold(Ticket(pool, Demand("after", 1)), ahead=True) as held:
            asyncio.get_running_loop().call_later(0.5, running.release)
            async with loaded_ahead(held, lambda: broken, "after") as engine:
                assert engine is None
                assert [holder.label for holder in holders(pool)] == ["after"]

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert "after: could not be loaded ahead, and is loaded when its device is free: no memory" in caplog.text
    assert broken.closed >= 1


def test_who_is_cancelled_meanwhile_leaves_nothing_behind(pool: DevicePool, running: Held) -> None:
    running.end_soon()
    built = ScriptedEngine(answer)

    async def job() -> None:
        async with hold(Ticket(pool, Demand("after", 1)), ahead=True) as held, loaded_ahead(held, lambda: built, "m"):
            pytest.fail("its device is not free")

    async def main() -> None:
        after = asyncio.create_task(job())
        await wait_until_open(built)
        after.cancel()
        with pytest.raises(asyncio.CancelledError):
            await after

    asyncio.run(main())
    assert built.closed == 1
    running.release()
    assert Ticket(pool, Demand("next", 1)).take() is not None


def test_on_a_free_device_nothing_is_loaded_ahead(pool: DevicePool) -> None:
    async def main() -> None:
        async with (
            hold(Ticket(pool, Demand("only", 1)), ahead=True) as held,
            loaded_ahead(held, lambda: pytest.fail("built"), "only") as engine,
        ):
            assert engine is None

    asyncio.run(main())
