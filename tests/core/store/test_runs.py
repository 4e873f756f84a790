"""Timelines as Parquet beside the results."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from core.monitor.timeline import Span
from core.results import open_store
from core.store.runs import TIMELINE, timeline_table
from core.store.schema import decode, encode

SPANS = [
    Span("org/a", "benchmarks", "lightweight", "load", "", 1_700_000_000.25, 1_700_000_010.5),
    Span("org/a", "benchmarks", "lightweight", "generate", "gsm8k", 1_700_000_011.0, 1_700_000_020.0),
]


def test_a_table_survives_parquet() -> None:
    table = timeline_table(SPANS, "node1")
    assert decode(encode(table), TIMELINE).equals(table)


def test_the_newest_run_is_read_back_in_order_of_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(str(tmp_path))
    store.write_timeline("night/ly", "r1", SPANS)
    store.write_timeline("night/ly", "r2", SPANS[1:])
    store.write_timeline("night/ly", "r2", SPANS[:1])
    (tmp_path / "timeline" / "campaign=night%2Fly" / "run=r2" / "stray.parquet").write_bytes(b"no Parquet")
    with caplog.at_level(logging.WARNING):
        assert store.timeline("night/ly") == SPANS
    assert "stray.parquet is not used" in caplog.text
    assert store.timeline("night/ly", "r1") == SPANS
    assert store.timeline("other") == []


def test_nothing_taken_down_is_no_file(tmp_path: Path) -> None:
    open_store(str(tmp_path)).write_timeline("c", "r", [])
    assert list(tmp_path.iterdir()) == []


def test_pandas_reads_it(tmp_path: Path) -> None:
    open_store(str(tmp_path)).write_timeline("nightly", "r1", SPANS)
    frame = pd.read_parquet(tmp_path / "timeline")
    assert list(frame["phase"]) == ["load", "generate"]
    assert set(frame["campaign"]) == {"nightly"}
    assert frame["started"].iloc[0] == pd.Timestamp(1_700_000_000.25, unit="s", tz="UTC")
