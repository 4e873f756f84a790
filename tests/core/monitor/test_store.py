"""Readings as Parquet, as engines alive at once, and for Prometheus."""

from __future__ import annotations

import logging
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from core.errors import StoreError, UserError
from core.monitor.prometheus import Exporter
from core.monitor.readings import Monitor, Reading
from core.monitor.summary import engines_alive
from core.storage.local import LocalStorage
from core.storage.open import open_storage
from core.store.monitor import MONITOR, MonitorWriter, monitor_path, monitor_table, read_monitor
from core.store.schema import decode, encode

READINGS = [
    Reading(1_700_000_000.25, "gpu", "0", "power_watts", 312.5),
    Reading(1_700_000_001.5, "host", "cpu", "utilisation_percent", 12.0),
]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "results")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TestStorage:
    def test_a_table_survives_parquet(self) -> None:
        table = monitor_table(READINGS, "node1", "llama")
        again = decode(encode(table), MONITOR)
        assert again.equals(table)
        assert again["time"][0].as_py().timestamp() == 1_700_000_000.25

    def test_a_path_is_a_hive_path_with_names_quoted(self) -> None:
        path = monitor_path("night/ly", "r1", "org/model", "ab12", 3)
        assert path == "monitor/campaign=night%2Fly/run=r1/org%2Fmodel-ab12-00003.parquet"

    def test_pandas_reads_what_a_monitor_wrote(self, storage: LocalStorage) -> None:
        with MonitorWriter(storage, "nightly", "r1", "org/llama") as writer, Monitor([lambda: READINGS], [writer]):
            pass
        frame = pd.read_parquet(storage.root / "monitor")
        assert len(frame) == 2 * len(READINGS)
        assert set(frame["campaign"]) == {"nightly"}
        assert set(frame["run"]) == {"r1"}
        assert set(frame["model"]) == {"org/llama"}
        assert set(frame["host"]) == {socket.gethostname()}
        power = frame[frame["metric"] == "power_watts"].iloc[0]
        assert (power["value"], power["time"]) == (312.5, pd.Timestamp(1_700_000_000.25, unit="s", tz="UTC"))

    @pytest.mark.s3
    def test_pandas_reads_it_from_s3(self, s3_root: str) -> None:
        storage = open_storage(s3_root)
        with MonitorWriter(storage, "nightly", "r1", "org/llama") as writer:
            writer(READINGS)
        frame = pd.read_parquet(f"{s3_root}/monitor")
        assert frame[["model", "metric", "value"]].to_dict("list") == {
            "model": ["org/llama"] * 2,
            "metric": ["power_watts", "utilisation_percent"],
            "value": [312.5, 12.0],
        }

    def test_a_file_is_written_each_minute_and_at_exit(self, storage: LocalStorage) -> None:
        clock = Clock()
        with MonitorWriter(storage, "c", "r", "m", seconds=60, clock=clock) as writer:
            for clock.now in (5, 30, 61, 90):
                writer(READINGS)
                assert len(storage.list("monitor")) == (clock.now > 60)
        assert len(storage.list("monitor")) == 2
        assert read_monitor(storage, "c").num_rows == 4 * len(READINGS)

    def test_nothing_read_is_no_file(self, storage: LocalStorage) -> None:
        with MonitorWriter(storage, "c", "r", "m"):
            pass
        assert storage.list("monitor") == []

    def test_rows_wait_for_a_storage_that_fails(self, storage: LocalStorage, caplog: pytest.LogCaptureFixture) -> None:
        storage.root.write_text("in the way")
        with caplog.at_level(logging.WARNING), MonitorWriter(storage, "c", "r", "m", seconds=0) as writer:
            writer(READINGS)
            assert "readings wait" in caplog.text
            storage.root.unlink()
            writer(READINGS)
            assert read_monitor(storage, "c", "r").num_rows == 2 * len(READINGS)

    def test_a_storage_that_stays_broken_is_a_warning(
        self, storage: LocalStorage, caplog: pytest.LogCaptureFixture
    ) -> None:
        storage.root.write_text("in the way")
        with pytest.raises(StoreError):
            storage.put_new("a", b"b")
        with caplog.at_level(logging.WARNING), MonitorWriter(storage, "c", "r", "m") as writer:
            writer(READINGS)
        assert "1 files of readings of m are lost" in caplog.text

    def test_a_run_is_read_back_in_order_of_time_without_other_runs(
        self, storage: LocalStorage, caplog: pytest.LogCaptureFixture
    ) -> None:
        for run, shift in (("r1", 60.0), ("r1", 0.0), ("r2", 30.0)):
            with MonitorWriter(storage, "c", run, "m") as writer:
                writer([Reading(shift, "host", "cpu", "utilisation_percent", shift)])
        storage.put("monitor/campaign=c/run=r1/stray.parquet", b"no Parquet")
        with caplog.at_level(logging.WARNING):
            assert read_monitor(storage, "c", "r1")["value"].to_pylist() == [0.0, 60.0]
        assert "stray.parquet is not used" in caplog.text
        assert read_monitor(storage, "c").num_rows == 3
        assert read_monitor(storage, "other").num_rows == 0


class TestEnginesAlive:
    def test_engines_one_after_the_other_are_one_at_a_time(self) -> None:
        alive = engines_alive(monitor_table([*life(1, 0, 10), *life(2, 11, 20), *life(3, 21, 30)], "h", "m"))
        assert alive.most == 1
        assert alive.steps == ((0, 1), (10, 0), (11, 1), (20, 0), (21, 1), (30, 0))

    def test_engines_that_overlap_between_two_readings_are_seen(self) -> None:
        """Read at 5 and at 15 alone: their own times say that both were alive from 9 to 11."""
        rows = [*life(1, 0, 11, read=(5.0,), told=15.0), *life(2, 9, 20, read=(15.0,), told=25.0)]
        assert engines_alive(monitor_table(rows, "h", "m")).most == 2

    def test_an_engine_that_is_read_after_its_end_is_dead(self) -> None:
        rows = [*life(1, 0, 5, told=30.0), *life(2, 6, 20)]
        assert engines_alive(monitor_table(rows, "h", "m")).most == 1

    def test_an_engine_whose_end_was_not_seen_lives_to_its_last_reading(self) -> None:
        rows = [Reading(time, "engine", "1", "running", 0.0) for time in (3.0, 8.0)]
        assert engines_alive(monitor_table(rows, "h", "m")).steps == ((3.0, 1), (8.0, 0))

    def test_the_same_process_id_on_two_hosts_is_two_engines(self) -> None:
        import pyarrow as pa

        tables = [monitor_table(life(1, 0, 10), host, "m") for host in ("h1", "h2")]
        assert engines_alive(pa.concat_tables(tables)).most == 2

    def test_without_engines_none_is_alive(self) -> None:
        alive = engines_alive(monitor_table(READINGS, "h", "m"))
        assert (alive.most, alive.steps) == (0, ())


def life(
    pid: int, started: float, ended: float, read: tuple[float, ...] = (), told: float | None = None
) -> list[Reading]:
    """Readings of an engine at ``read``, and, when it has ended, at ``told``."""
    told = ended if told is None else told
    rows = [Reading(time, "engine", str(pid), "started", started) for time in (*read, told)]
    return [*rows, Reading(told, "engine", str(pid), "ended", ended)]


class TestPrometheus:
    @pytest.fixture
    def exporter(self) -> Iterator[Exporter]:
        with Exporter(0) as exporter:
            yield exporter

    def test_the_latest_reading_is_served(self, exporter: Exporter) -> None:
        sink = exporter.sink("org/llama")
        sink(READINGS)
        sink([Reading(1_700_000_005.0, "gpu", "0", "power_watts", 99.5)])
        lines = scrape(exporter)
        assert lines == [
            'steelyard_reading{device="0",metric="power_watts",model="org/llama",source="gpu"} 99.5',
            'steelyard_reading{device="cpu",metric="utilisation_percent",model="org/llama",source="host"} 12.0',
        ]

    def test_a_model_that_is_done_is_served_no_more(self, exporter: Exporter) -> None:
        exporter.sink("a")(READINGS)
        exporter.sink("b")(READINGS)
        exporter.forget("a")
        assert all('model="b"' in line for line in scrape(exporter))

    def test_a_taken_port_is_refused_with_its_number(self, exporter: Exporter) -> None:
        with pytest.raises(UserError, match=rf"'127.0.0.1:{exporter.port}'.*choose a free port"):
            Exporter(exporter.port)

    def test_two_campaigns_in_a_process_may_each_serve(self, exporter: Exporter) -> None:
        with Exporter(0) as other:
            other.sink("b")(READINGS)
            assert scrape(exporter) == []
            assert len(scrape(other)) == 2

    def test_a_closed_exporter_frees_its_port(self) -> None:
        first = Exporter(0)
        first.close()
        Exporter(first.port).close()


def scrape(exporter: Exporter) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return [line for line in lines if not line.startswith("#")]
