"""Tables from columns of Python objects are those that pyarrow makes of rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

import core.store.schema
from core.store.schema import array_of, table_of


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([("a", "b"), (), ("c",)], pa.list_(pa.string())),
        ([(), ()], pa.list_(pa.float64())),
        ([(True,), (False, True)], pa.list_(pa.bool_())),
        ([], pa.list_(pa.string())),
        ([1, None], pa.int64()),
        ([float("inf"), 0.5], pa.float64()),
        ([None, "ü"], pa.string()),
    ],
)
def test_arrays_are_those_of_pyarrow(values: list[Any], kind: pa.DataType) -> None:
    assert array_of(values, kind).equals(pa.array(values, kind))


def test_mappings_become_maps_in_their_order() -> None:
    values = [{"b": 1.0, "a": 2.0}, {}, {"c": float("-inf")}]
    kind = pa.map_(pa.string(), pa.float64())
    assert array_of(values, kind).equals(pa.array([list(value.items()) for value in values], kind))


@pytest.mark.parametrize("rows", [0, 1, 3, 4])
def test_rows_come_in_their_order_however_many_at_a_time(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(core.store.schema, "ROWS_AT_ONCE", 3)
    schema = pa.schema([("number", pa.int64())])
    table = table_of(range(rows), schema, lambda field, part: pa.array(part, field.type))
    assert table["number"].to_pylist() == list(range(rows))
    assert table.schema == schema
