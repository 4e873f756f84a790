"""What is in flight is bounded, and never so that something cannot be sent at all."""

from __future__ import annotations

import asyncio

from PIL import Image

from core.images import encode_image
from engines.in_flight import Room, pixels


def test_pixels_are_read_from_the_header() -> None:
    images = [encode_image(Image.new(mode, size)).png for mode, size in (("L", (7, 5)), ("RGBA", (640, 300)))]
    assert pixels(images) == 7 * 5 + 640 * 300
    assert pixels([png[:24] for png in images]) == pixels(images)
    assert pixels([b"not a picture"]) == 0


def entered(room: Room, sizes: list[int]) -> int:
    """How many of ``sizes`` come in one after the other without anybody leaving."""

    count = 0

    async def feed() -> None:
        nonlocal count
        for size in sizes:
            await room.enter(size)
            count += 1

    async def wait() -> None:
        feeding = asyncio.create_task(feed())
        await asyncio.sleep(0)
        feeding.cancel()

    asyncio.run(wait())
    return count


def test_room_is_bounded_by_number_and_by_size() -> None:
    assert entered(Room(3, 100), [0, 0, 0, 0]) == 3
    assert entered(Room(9, 100), [40, 40, 20, 1]) == 3
    assert entered(Room(9, 100), [40, 0, 70, 0]) == 2


def test_what_is_larger_than_the_room_comes_in_alone() -> None:
    assert entered(Room(9, 100), [1000, 0, 1]) == 1
    assert entered(Room(9, 100), [1, 1000]) == 1


def test_who_leaves_makes_room() -> None:
    async def use() -> None:
        room = Room(1, 100)
        await room.enter(1000)
        waiting = asyncio.create_task(room.enter(100))
        await asyncio.sleep(0)
        assert not waiting.done()
        room.leave(1000)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(use())
