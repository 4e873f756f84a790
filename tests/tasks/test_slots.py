import asyncio

import pytest

from tasks.slots import GpuBudget


def test_no_device_is_given_out_twice() -> None:
    async def main() -> int:
        budget, held, most = GpuBudget(3), set[int](), 0

        async def job(gpus: int) -> None:
            nonlocal most
            async with budget.hold(gpus) as devices:
                assert not held & set(devices)
                held.update(devices)
                most = max(most, len(held))
                await asyncio.sleep(0)
                held.difference_update(devices)

        await asyncio.gather(*(job(gpus) for gpus in (1, 2, 3, 1, 2, 1, 3, 1)))
        return most

    assert asyncio.run(main()) == 3


def test_a_cancelled_wait_lets_the_next_one_start() -> None:
    async def main() -> tuple[int, ...]:
        budget = GpuBudget(2)
        async with budget.hold(1):
            gang = asyncio.create_task(budget.hold(2).__aenter__())
            small = asyncio.create_task(budget.hold(1).__aenter__())
            await asyncio.sleep(0)
            assert not small.done()
            gang.cancel()
            return await small

    assert asyncio.run(main()) == (1,)


def test_more_gpus_than_the_fleet_has_is_refused() -> None:
    async def main() -> None:
        async with GpuBudget(1).hold(2):
            pass

    with pytest.raises(ValueError, match="2 GPUs asked of a fleet of 1"):
        asyncio.run(main())
