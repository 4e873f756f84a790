"""What crosses is equal to what was sent, of built-in types, and nothing else is ever made."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn

import numpy
import pytest

from core.scoring.sandbox.values import MalformedError, RefusedError, decode, encode, restore


def refuse(value: Any) -> NoReturn:
    raise RefusedError(type(value).__name__)


def malformed(data: list[Any]) -> NoReturn:
    raise ValueError(data)


def across(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value, refuse))), malformed)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -5, 1 << 70, 0.1, -0.0, math.inf, 1e-320, 2 + 3j, "", "é\ud800\n", b"\x00\xff", bytearray(b"a"),
        [1, [2.0, "3"]], (), (1, (2,)), {1, 2.5}, frozenset({(1, 2)}), {"a": [1], 2: None, (1, 2): {}}, [{}, [], set()],
        range(3, 9, 2), Fraction(1, 3), Decimal("0.10"), deque([1, 2], maxlen=3), Counter("aab"), OrderedDict(b=1, a=2),
        defaultdict(list, a=[1]), int, ValueError, {}.keys(), {1: 2}.keys(), {1: 2}.items(),
    ],
    ids=repr,
)  # fmt: skip
def test_a_value_comes_back_equal_and_of_its_type(value: Any) -> None:
    back = across(value)
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_numbers_without_end_and_that_are_none_come_back() -> None:
    assert across(-(10**5000)) == -(10**5000)
    assert math.isnan(across(math.nan))


def test_numpy_s_values_come_back() -> None:
    for value in (numpy.float32(0.1), numpy.int64(3), numpy.bool_(True), numpy.complex64(1j)):
        assert type(across(value)) is type(value)
        assert across(value) == value
    array = numpy.arange(6, dtype=numpy.int16).reshape(2, 3)
    assert across(array).dtype == array.dtype
    assert (across(array) == array).all()


def test_subclasses_come_back_as_what_they_hold() -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 0

    class Text(str):
        def __str__(self) -> str:
            return "another"

    class Items(list[int]):
        def __iter__(self) -> Any:
            return iter([9])

    Point = namedtuple("Point", "x y")
    for value, plain in ((Liar(3), 3), (Text("a"), "a"), (Items([1]), [1]), (Point(1, 2), (1, 2))):
        assert type(across(value)) is type(plain)
        assert across(value) == plain


@pytest.mark.parametrize(
    "data",
    [
        {}, [], ["list"], ["list", 1], ["nothing", 1], ["type", "eval"], ["type", "type"], ["int", 5], ["bytes", "zz"],
        ["range", 1, 2], ["set", [["list", []]]], ["dict", [[1]]], ["scalar", "|O8", 1], ["array", "<i8", [5], ["list", [1]]],
        ["array", "<i8,O", [], 1], ["complex", "1", "2"], ["Fraction", "1/0"], ["Decimal", "x"], ["deque", [], "x"],
        ["mine", 0, "x"], ["named", "os", "system"],
    ],
    ids=repr,
)  # fmt: skip
def test_nothing_else_is_read(data: Any) -> None:
    with pytest.raises(MalformedError):
        decode(data, malformed)


def test_what_nests_without_end_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(RefusedError, match="contains itself"):
        encode(value, refuse)
    data: Any = 1
    for _ in range(100_000):
        data = ["list", [data]]
    with pytest.raises(MalformedError):
        decode(data, malformed)


def test_changes_are_made_in_place_as_deep_as_they_go() -> None:
    inner, things, letters, raw = [1], {1, 2}, deque("a"), bytearray(b"a")
    old = [inner, {"k": things, "gone": 1}, (letters, raw)]
    restore(old, [[1, 2], {"k": {3}, "new": 2}, (deque("bc"), bytearray(b"xyz")), "more"])
    assert old == [[1, 2], {"k": {3}, "new": 2}, (deque("bc"), bytearray(b"xyz")), "more"]
    assert (inner, things, letters, raw) == ([1, 2], {3}, deque("bc"), bytearray(b"xyz"))
    assert old[0] is inner
