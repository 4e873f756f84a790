"""Python objects to Arrow tables, a column at a time: several times as fast as from a dict for each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from itertools import accumulate, chain
from typing import Any, TypeVar

import pyarrow as pa

ROWS_AT_ONCE = 1 << 14  # so that the texts of no array outgrow the 2 GiB it may have

Row = TypeVar("Row")


def table_of(rows: Sequence[Row], schema: pa.Schema, column: Callable[[pa.Field, Sequence[Row]], pa.Array]) -> pa.Table:
    """Return the table whose columns ``column`` makes of some rows at a time."""
    parts = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
    batches = [pa.record_batch([column(field, part) for field in schema], schema=schema) for part in parts]
    return pa.Table.from_batches(batches, schema)


def array_of(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
    """Return an array. Maps are given as mappings; a list or map that is None is not understood."""
    listed = list(values)
    if pa.types.is_map(kind):
        return _maps(listed, kind)
    return _lists(listed, kind) if pa.types.is_list(kind) else pa.array(listed, kind)


def _lists(values: Sequence[Sequence[Any]], kind: pa.ListType) -> pa.ListArray:
    items = pa.array(list(chain.from_iterable(values)), kind.value_type)
    return pa.ListArray.from_arrays(_offsets(values), items, type=kind)


def _maps(values: Sequence[Mapping[str, Any]], kind: pa.MapType) -> pa.MapArray:
    keys = pa.array(list(chain.from_iterable(values)), kind.key_type)
    items = pa.array(list(chain.from_iterable(value.values() for value in values)), kind.item_type)
    return pa.MapArray.from_arrays(_offsets(values), keys, items, type=kind)


def _offsets(values: Sequence[Sized]) -> pa.Array:
    return pa.array([0, *accumulate(map(len, values))], pa.int32())
