"""When rows of two ways to compute them are taken for alike."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("vllm")

from engines.session.row_check import alike


@pytest.mark.parametrize(
    ("theirs", "ours", "so"),
    [
        ([(1, 2, -1.0, -0.5)], [(1, 2, -1.001, -0.501)], True),
        ([(1, 2, -1.0, -0.5)], [(1, 2, -1.5, -0.5)], False),
        ([(1, 2, -1.0, -0.5)], [(3, 2, -1.0, -0.5)], False),
        ([(1, 2, -1.0, -0.5)], [], False),
        ([(1, 2, -1.0, -0.5)], [(1, 2, -1.0, float("nan"))], False),
    ],
)
def test_rows_alike(theirs: Any, ours: Any, so: bool) -> None:
    assert alike(theirs, ours) is so
