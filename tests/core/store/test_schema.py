"""Files of older schema versions are still read, and tables from columns of objects are those that pyarrow makes of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

import core.store.schema
from core.request import Generated, Response, Scored
from core.store.schema import (
    RESPONSES,
    SAMPLES,
    VERSION_KEY,
    array_of,
    decode,
    encode,
    encode_parts,
    responses_of,
    responses_table,
    samples_of,
    samples_tables,
    table_of,
)
from tests.core.store_parts import make_cell, make_scoring, samples_table


def as_version(table: pa.Table, version: bytes) -> pa.Table:
    return table.replace_schema_metadata({**(table.schema.metadata or {}), VERSION_KEY: version})


def test_samples_of_version_1_lack_what_came_later_and_nothing_else() -> None:
    now = samples_table(make_cell(), make_scoring().samples, {b"own": b"kept"})
    old = as_version(now.drop_columns(["reasoning", "dropped_tokens", "faults"]), b"1")
    read = decode(encode(old), SAMPLES)
    assert read.schema.equals(SAMPLES, check_metadata=False)
    assert read["reasoning"].null_count == read["dropped_tokens"].null_count == read.num_rows > 0
    assert read.select(old.column_names).equals(old)
    assert (read.schema.metadata or {})[b"own"] == b"kept"


def test_responses_of_version_1_go_on_as_they_are() -> None:
    answers: list[Response] = [
        Generated("g", "4", "stop", 9, 1, cached_tokens=3),
        Scored("s", -0.5, True, 1, 9, truncated=2),
    ]
    table = responses_table(answers)
    unsaid = pa.array(
        [None if row["kind"] == "generated" else row["truncated"] for row in table.to_pylist()], pa.int64()
    )
    old = as_version(table.set_column(table.schema.get_field_index("truncated"), "truncated", unsaid), b"1")
    assert responses_of(decode(encode(old), RESPONSES)) == answers


def test_what_was_dropped_is_kept_of_both_kinds() -> None:
    answers: list[Response] = [
        Generated("g", "4", "length", 9, 1, truncated=5),
        Scored("s", -0.5, True, 1, 9, truncated=2),
    ]
    assert responses_of(decode(encode(responses_table(answers)), RESPONSES)) == answers


def test_a_column_that_version_1_had_already_is_missed() -> None:
    old = as_version(samples_table(make_cell(), make_scoring().samples, {}), b"1")
    with pytest.raises(ValueError, match="columns differ"):
        decode(encode(old.drop_columns(["doc_id"])), SAMPLES)


def test_files_of_a_later_version_are_refused() -> None:
    later = as_version(samples_table(make_cell(), make_scoring().samples, {}), b"4")
    with pytest.raises(ValueError, match="schema version 1 or 2 or 3"):
        decode(encode(later), SAMPLES)


def test_samples_come_back_as_they_were() -> None:
    samples = list(make_scoring().samples)
    samples.append(replace(samples[0], doc_id=99, texts=("4",), reasoning=("2+2",), truncated=True, dropped_tokens=3))
    assert samples_of(decode(encode(samples_table(make_cell(), samples, {})), SAMPLES)) == samples


def test_samples_of_version_1_come_back_with_defaults() -> None:
    samples = list(make_scoring().samples)
    later = ["reasoning", "dropped_tokens", "faults"]
    old = as_version(samples_table(make_cell(), samples, {}).drop_columns(later), b"1")
    assert samples_of(decode(encode(old), SAMPLES)) == samples


def test_samples_of_version_2_have_no_faults() -> None:
    samples = [replace(sample, faults=("empty prompt",)) for sample in make_scoring().samples]
    now = samples_table(make_cell(), samples, {})
    assert samples_of(decode(encode(now), SAMPLES)) == samples
    old = as_version(now.drop_columns(["faults"]), b"2")
    assert samples_of(decode(encode(old), SAMPLES)) == list(make_scoring().samples)


@pytest.mark.parametrize("docs", [0, 1, 4, 9])
def test_a_file_made_in_parts_has_the_bytes_of_the_whole(monkeypatch: pytest.MonkeyPatch, docs: int) -> None:
    monkeypatch.setattr(core.store.schema, "ROWS_IN_GROUP", 4)
    samples = make_scoring(docs).samples
    whole = samples_table(make_cell(), samples, {b"own": b"kept"})
    parts = list(samples_tables(make_cell(), samples, {b"own": b"kept"}))
    assert b"".join(encode_parts(parts[0].schema, parts)) == encode(whole)
    assert [part.num_rows for part in parts] == [min(4, docs - start) for start in range(0, max(1, docs), 4)]
    assert samples_of(decode(encode(whole), SAMPLES)) == list(samples)


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
