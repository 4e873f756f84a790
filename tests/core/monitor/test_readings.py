"""Monitoring: readers, the thread that calls them, and what readings come to."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from core.errors import UserError
from core.monitor import readings as monitor
from core.monitor.readings import HostReader, Monitor, Reading, engine_reader, engine_readings, read_gpus, tree_memory
from core.monitor.summary import summarise

NEVER = 3600.0  # seconds between readings that a test does not wait for


def values(readings: list[Reading]) -> dict[str, float]:
    return {reading.metric: reading.value for reading in readings}


class TestReaders:
    def test_the_host_is_busy_while_we_are(self) -> None:
        reader = HostReader()
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            sum(range(1000))
        found = values(reader())
        assert 0 < found["utilisation_percent"] <= 100
        assert found["memory_used_bytes"] > tree_memory(os.getpid()) / 4

    def test_a_host_that_was_just_read_tells_no_utilisation(self) -> None:
        assert "utilisation_percent" not in values(HostReader()())

    def test_without_a_driver_there_are_no_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pynvml, "nvmlInit", _raises(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
        with fresh_driver():
            assert read_gpus() == []

    def test_a_gpu_is_read_in_watts_joules_and_bytes(self, one_gpu: None) -> None:
        readings = read_gpus()
        assert {(reading.source, reading.device) for reading in readings} == {("gpu", "0")}
        assert values(readings) == {
            "utilisation_percent": 87.0,
            "memory_used_bytes": 40e9,
            "power_watts": 312.5,
            "energy_joules": 9000.0,
            "temperature_celsius": 61.0,
        }

    def test_a_query_that_a_card_does_not_support_is_left_out(
        self, one_gpu: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", _raises(pynvml.NVML_ERROR_NOT_SUPPORTED))
        found = values(read_gpus(["0"]))
        assert "energy_joules" not in found
        assert found["power_watts"] == 312.5

    def test_gpus_are_named_by_uuid_too(self, one_gpu: None) -> None:
        assert {reading.device for reading in read_gpus(["GPU-5"])} == {"GPU-5"}

    def test_an_engine_that_has_not_started_reads_as_nothing(self) -> None:
        assert list(engine_reader(dict)()) == []

    def test_an_engine_is_read_with_the_memory_of_its_processes(self) -> None:
        readings = engine_readings({"pid": os.getpid(), "running": 3, "ray_gpus_used": 2}, now=5.0)
        assert Reading(5.0, "engine", str(os.getpid()), "running", 3.0) in readings
        assert Reading(5.0, "ray", "cluster", "gpus_used", 2.0) in readings
        assert values(readings)["rss_bytes"] > 10e6

    def test_an_engine_that_has_ended_runs_nothing(self) -> None:
        stats = {"pid": os.getpid(), "running": 3, "prompt_tokens": 7, "ray_gpus": 2, "ended": 4.0}
        assert values(engine_readings(stats, now=5.0)) == {"prompt_tokens": 7.0, "ended": 4.0}


class TestMonitor:
    def test_reads_once_at_the_start_and_once_at_exit(self) -> None:
        counted = Counted()
        with Monitor([counted], seconds=NEVER):
            assert counted.wait_for(1)
        assert counted.calls == 2

    def test_reads_at_exit_what_has_changed_since(self) -> None:
        batches: list[list[Reading]] = []
        counted = Counted()
        with Monitor([counted], [lambda batch: batches.append(list(batch))], seconds=NEVER):
            assert counted.wait_for(1)
            counted.value = 42.0
        assert [reading.value for batch in batches for reading in batch] == [0.0, 42.0]

    def test_reads_again_and_again(self) -> None:
        counted = Counted()
        with Monitor([counted], seconds=0.01):
            assert counted.wait_for(5)

    def test_reads_on_demand(self) -> None:
        counted = Counted()
        with Monitor([counted], seconds=NEVER) as watching:
            assert counted.wait_for(1)
            counted.value = 7.0
            assert watching.read_now(timeout=10)
            assert watching.readings()[-1].value == 7.0

    def test_a_reader_that_hangs_holds_up_neither_a_demand_nor_the_exit(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(monitor, "EXIT_SECONDS", 0.05)
        release = threading.Event()

        def hanging() -> list[Reading]:
            release.wait(60)
            return []

        with caplog.at_level(logging.WARNING), Monitor([hanging]) as watching:
            assert not watching.read_now(timeout=0.05)
        release.set()
        assert "hangs" in caplog.text

    def test_a_reader_that_raises_is_warned_about_once_and_the_others_go_on(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken() -> list[Reading]:
            raise RuntimeError("GPU is lost")

        counted = Counted()
        with caplog.at_level(logging.WARNING), Monitor([broken, counted], seconds=0.01):
            assert counted.wait_for(5)
        assert caplog.text.count("GPU is lost") == 1

    def test_a_sink_that_raises_is_warned_about_once_and_the_others_go_on(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(batch: object) -> None:
            raise RuntimeError("no room")

        taken: list[Any] = []
        counted = Counted()
        with caplog.at_level(logging.WARNING), Monitor([counted], [broken, taken.append], seconds=0.01):
            assert counted.wait_for(5)
        assert caplog.text.count("no room") == 1
        assert len(taken) == counted.calls

    def test_an_exception_passes_and_the_last_readings_are_handed_over(self) -> None:
        taken: list[Any] = []
        with pytest.raises(KeyError), Monitor([Counted()], [taken.extend], seconds=NEVER):
            raise KeyError
        assert taken

    def test_seconds_that_are_not_positive_are_refused(self) -> None:
        with pytest.raises(UserError, match=r"monitor.seconds = 0: must be more than 0, such as 5"):
            Monitor([], seconds=0)


class TestSummary:
    def test_nothing_read_is_nothing_said(self) -> None:
        assert summarise([], 0, 10) == {}
        assert summarise(series("gpu", "0", "utilisation_percent", (20, 50.0)), 0, 10) == {}

    def test_means_are_weighted_by_time(self) -> None:
        readings = series("gpu", "0", "utilisation_percent", (0, 100.0), (8, 100.0), (9, 0.0), (10, 0.0))
        found = summarise(readings, 0, 10)
        assert found == {"gpu_utilisation_mean": 85.0, "gpu_utilisation_max": 100.0}

    def test_gpus_are_averaged_and_the_fullest_counts(self) -> None:
        readings = [
            *series("gpu", "0", "utilisation_percent", (1, 90.0)),
            *series("gpu", "1", "utilisation_percent", (1, 10.0)),
            *series("gpu", "0", "memory_used_bytes", (1, 3e9), (2, 5e9)),
            *series("gpu", "1", "memory_used_bytes", (1, 4e9), (2, 4e9), (11, 9e9)),
        ]
        assert summarise(readings, 0, 10) == {
            "gpu_utilisation_mean": 50.0,
            "gpu_utilisation_max": 90.0,
            "gpu_memory_peak_bytes": 5e9,
        }

    def test_energy_is_the_counters_difference_where_there_is_one(self) -> None:
        readings = [
            *series("gpu", "0", "energy_joules", (0, 1000.0), (5, 2000.0), (10, 2500.0)),
            *series("gpu", "0", "power_watts", (0, 1.0), (10, 1.0)),
        ]
        assert summarise(readings, 0, 10)["energy_joules"] == 1500.0

    def test_energy_is_power_over_time_on_a_card_without_a_counter(self) -> None:
        readings = [
            *series("gpu", "0", "power_watts", (0, 100.0), (4, 300.0), (10, 300.0)),
            *series("gpu", "1", "energy_joules", (0, 0.0), (10, 50.0)),
        ]
        assert summarise(readings, 0, 10)["energy_joules"] == 4 * 200 + 6 * 300 + 50

    def test_both_ways_to_measure_energy_agree_within_an_interval_between_readings(self) -> None:
        counted = series("gpu", "0", "energy_joules", (0, 0.0), (5, 1000.0), (10, 2000.0))
        drawn = series("gpu", "0", "power_watts", (0, 200.0), (5, 200.0), (10, 200.0))
        by_counter, by_power = summarise(counted, 2, 4), summarise(drawn, 2, 4)
        assert by_counter["energy_joules"] == pytest.approx(by_power["energy_joules"]) == 400.0

    def test_tokens_per_second_count_what_the_readings_cover(self) -> None:
        readings = series("engine", "7", "generation_tokens", (2, 100.0), (6, 500.0))
        assert summarise(readings, 0, 20)["generation_tokens_per_second"] == 100.0
        assert summarise(readings, 3, 4)["generation_tokens_per_second"] == 100.0

    def test_one_reading_of_a_counter_tells_nothing(self) -> None:
        assert summarise(series("engine", "7", "prompt_tokens", (2, 100.0)), 0, 10) == {}

    def test_the_hit_rate_is_of_the_interval(self) -> None:
        readings = [
            *series("engine", "7", "prefix_cache_queries", (0, 1000.0), (10, 1400.0)),
            *series("engine", "7", "prefix_cache_hits", (0, 0.0), (10, 300.0)),
        ]
        assert summarise(readings, 0, 10) == {"prefix_cache_hit_rate": 0.75}

    def test_an_idle_cache_has_no_hit_rate(self) -> None:
        readings = series("engine", "7", "prefix_cache_queries", (0, 1000.0), (10, 1000.0))
        assert "prefix_cache_hit_rate" not in summarise(readings, 0, 10)

    def test_engines_and_hosts_have_their_peaks_and_means(self) -> None:
        readings = [
            *series("engine", "7", "rss_bytes", (0, 1e9), (5, 3e9), (10, 2e9)),
            *series("engine", "7", "kv_cache_usage", (0, 0.1), (5, 0.9), (10, 0.0)),
            *series("engine", "7", "running", (0, 0.0), (5, 8.0), (10, 0.0)),
            *series("engine", "7", "waiting", (0, 2.0), (10, 2.0)),
            *series("host", "cpu", "utilisation_percent", (0, 20.0), (10, 40.0)),
        ]
        assert summarise(readings, 0, 10) == {
            "engine_rss_peak_bytes": 3e9,
            "kv_cache_usage_peak": 0.9,
            "running_mean": 4.0,
            "waiting_mean": 2.0,
            "host_cpu_mean": 30.0,
        }


def series(source: str, device: str, metric: str, *points: tuple[float, float]) -> list[Reading]:
    return [Reading(time, source, device, metric, value) for time, value in points]


class Counted:
    """A reader that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.value = 0.0
        self._called = threading.Condition()

    def __call__(self) -> list[Reading]:
        with self._called:
            self.calls += 1
            self._called.notify_all()
            return [Reading(time.time(), "host", "test", "value", self.value)]

    def wait_for(self, calls: int) -> bool:
        with self._called:
            return self._called.wait_for(lambda: self.calls >= calls, 30)


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The driver's own calls, answered for one card: there need not be one here."""
    answers = {
        "nvmlInit": None,
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": "card",
        "nvmlDeviceGetHandleByUUID": "card",
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=87, memory=3),
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=40_000_000_000),
        "nvmlDeviceGetPowerUsage": 312_500,
        "nvmlDeviceGetTotalEnergyConsumption": 9_000_000,
        "nvmlDeviceGetTemperature": 61,
    }
    for name, answer in answers.items():
        assert hasattr(pynvml, name)
        monkeypatch.setattr(pynvml, name, lambda *_, answer=answer: answer)
    with fresh_driver():
        yield


@contextmanager
def fresh_driver() -> Iterator[None]:
    """Forget whether there is a driver, before and after."""
    monitor._nvml.cache_clear()
    try:
        yield
    finally:
        monitor._nvml.cache_clear()


def _raises(code: int) -> Any:
    def call(*_: object) -> None:
        raise pynvml.NVMLError(code)

    return call
