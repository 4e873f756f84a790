"""Which names of a test text belong to the program."""

from __future__ import annotations

import pytest

from core.scoring.sandbox.names import names_of


@pytest.mark.parametrize(
    ("tests", "names", "modules"),
    [
        ("assert f(1) == 2", ("f",), {}),
        ("assert set(f([1])) == {1} and len(g(2)) == 1", ("f", "g"), {}),
        ("assert sum(10, 15) == 6", ("sum",), {}),  # MBPP 126 tests a function of that name
        ("assert math.isclose(f(2), np.sqrt(2))", ("f",), {"math": "math", "np": "numpy"}),
        ("import math\nassert math.isclose(f(2), 1)", ("f",), {}),
        ("assert bisect(3) == 1", ("bisect",), {}),  # called, so no module
        ("def check(candidate):\n    x = 1\n    assert candidate(x) == helper(x)\ncheck(f)", ("f", "helper"), {}),
        ("root = Node(1)\nroot.left = Node(2)\nassert height(root) == 2", ("Node", "height"), {}),
        ("assert [f(x) for x in (1, 2)] == [g(y) for y in [1]]", ("f", "g"), {}),
        ("assert f(", (), {}),
    ],
)
def test_names_that_tests_use_and_do_not_define(tests: str, names: tuple[str, ...], modules: dict[str, str]) -> None:
    assert names_of(tests) == (names, modules)
