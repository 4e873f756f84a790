"""What is in flight is bounded, and never so that something cannot be sent at all."""

from __future__ import annotations

from PIL import Image

from core.benchmark.images import encode_image
from engines.session.in_flight import Room, pixels


def test_pixels_are_read_from_the_header() -> None:
    images = [encode_image(Image.new(mode, size)).png for mode, size in (("L", (7, 5)), ("RGBA", (640, 300)))]
    assert pixels(images) == 7 * 5 + 640 * 300
    assert pixels([png[:24] for png in images]) == pixels(images)
    assert pixels([b"not a picture"]) == 0


def entered(room: Room, sizes: list[tuple[int, int]]) -> int:
    """How many of ``sizes`` come in one after the other without anybody leaving."""
    for count, size in enumerate(sizes):
        if not room.fits(*size):
            return count
        room.enter(*size)
    return len(sizes)


def of_tokens(*sizes: int) -> list[tuple[int, int]]:
    return [(size, 0) for size in sizes]


def test_room_is_bounded_by_number_and_by_size() -> None:
    assert entered(Room(3, 100), of_tokens(0, 0, 0, 0)) == 3
    assert entered(Room(9, 100), of_tokens(40, 40, 20, 1)) == 3
    assert entered(Room(9, 100), of_tokens(40, 0, 70, 0)) == 2


def test_pixels_are_bounded_beside_tokens() -> None:
    assert entered(Room(9, 100, 50), [(100, 0), (0, 50), (0, 0), (0, 1)]) == 3
    assert entered(Room(2, 100, 50), [(100, 0), (0, 50), (0, 0)]) == 2


def test_what_is_larger_than_the_room_comes_in_alone() -> None:
    assert entered(Room(9, 100), of_tokens(1000, 1)) == 1
    assert entered(Room(9, 100), of_tokens(1, 1000)) == 1
    assert entered(Room(9, 100, 50), [(0, 1000), (0, 1)]) == 1


def test_what_is_larger_than_the_room_holds_up_only_its_own_kind() -> None:
    assert entered(Room(9, 100, 50), [(1000, 0), (0, 0), (0, 50), (1, 0)]) == 3


def test_who_leaves_makes_room() -> None:
    room = Room(1, 100, 50)
    room.enter(1000, 7)
    assert not room.fits(0)
    room.leave(1000, 7)
    assert entered(room, [(100, 50)]) == 1
