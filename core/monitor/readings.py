"""Readings of a machine and an engine while a benchmark runs, taken every few seconds on a thread of their own."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from core.errors import UserError

SECONDS = 5.0
EXIT_SECONDS = 30.0  # a driver or a storage that hangs is not waited for any longer
KEPT_READINGS = 500_000  # some 80 MB; days of one model on one GPU
GAUGES = frozenset({"running", "waiting", "kv_cache_usage"})  # of an engine; meaningless once it has ended

log = logging.getLogger("steelyard.monitor")


@dataclass(frozen=True, slots=True)
class Reading:
    """One number read at ``time`` (unix seconds). docs/monitoring.md lists sources, devices and metrics with their units."""

    time: float
    source: str  # "gpu", "host", "engine" or "ray"
    device: str
    metric: str
    value: float


Reader = Callable[[], Iterable[Reading]]
Sink = Callable[[Sequence[Reading]], object]


class HostReader:
    """Reads this machine: CPU use in percent of all cores since the last call, and memory that is not available."""

    def __init__(self) -> None:
        self._last = _cpu_seconds()

    def __call__(self) -> list[Reading]:
        """Read. The first call after less than 0.1 s of all cores together tells no CPU use."""
        now, (busy, total) = time.time(), _cpu_seconds()
        memory = psutil.virtual_memory()
        readings = [Reading(now, "host", "memory", "memory_used_bytes", float(memory.total - memory.available))]
        past_busy, past_total = self._last
        if total - past_total >= 0.1:  # the kernel counts hundredths of a second: less is noise
            self._last = (busy, total)
            share = min(1.0, max(0.0, (busy - past_busy) / (total - past_total)))
            readings.append(Reading(now, "host", "cpu", "utilisation_percent", 100 * share))
        return readings


def _cpu_seconds() -> tuple[float, float]:
    """Seconds all cores were busy, and seconds there were, since the machine started."""
    times = psutil.cpu_times()
    # What guests take is in user and nice already.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def read_gpus(names: Sequence[str] | None = None) -> list[Reading]:
    """Read NVIDIA GPUs: all, or those of ``names`` (indices or UUIDs). What a card does not tell is left out.

    Returns nothing where there is no driver.
    """
    nvml = _nvml()
    if nvml is None:
        return []
    if names is None:
        names = [str(index) for index in range(nvml.nvmlDeviceGetCount())]
    return [reading for name in names for reading in _read_gpu(nvml, name)]


def _read_gpu(nvml: Any, name: str) -> list[Reading]:
    by_name = nvml.nvmlDeviceGetHandleByIndex if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID
    handle = by_name(int(name) if name.isdigit() else name)
    now = time.time()
    queries: dict[str, Callable[[], float]] = {
        "utilisation_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "memory_used_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used,
        "power_watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,  # told in mW
        "energy_joules": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000,  # mJ since the driver came up
        "temperature_celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
    }
    readings = []
    for metric, query in queries.items():
        with suppress(nvml.NVMLError):
            readings.append(Reading(now, "gpu", name, metric, float(query())))
    return readings


@functools.cache
def _nvml() -> Any:
    """The driver's library, kept open until this process ends; None where there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def engine_reader(stats: Callable[[], Mapping[str, float]]) -> Reader:
    """Return a reader of an engine by its ``stats`` (`engines.engine.Engine.stats`), its process tree's memory included."""
    return lambda: engine_readings(stats(), time.time())


def engine_readings(stats: Mapping[str, float], now: float) -> list[Reading]:
    """Return an engine's figures as readings. Nothing without ``pid``: such an engine has not started yet."""
    if "pid" not in stats:
        return []
    pid, ended = int(stats["pid"]), "ended" in stats
    own = {name: value for name, value in stats.items() if name != "pid" and not (ended and name in GAUGES)}
    cluster = {name: own.pop(name) for name in list(own) if name.startswith("ray_")}
    if not ended and (memory := tree_memory(pid)):
        own["rss_bytes"] = float(memory)
    readings = [Reading(now, "engine", str(pid), name, float(value)) for name, value in own.items()]
    if not ended:
        readings += [Reading(now, "ray", "cluster", name[len("ray_") :], float(v)) for name, v in cluster.items()]
    return readings


def add_up(each: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Figures of several engines (`engines.engine.Engine.stats`) as one's: sums, but for the KV cache the fullest's.

    Together they live from the first's start to the last's end; a ``pid`` they do not have.
    """
    living = [stats for stats in each if stats]
    values: dict[str, list[float]] = defaultdict(list)
    for stats in living:
        for name, value in stats.items():
            if not ("ended" in stats and name in GAUGES):
                values[name].append(value)
    chosen = {"started": min, "ended": max, "kv_cache_usage": max}
    found = {name: float(chosen.get(name, sum)(some)) for name, some in values.items() if name != "pid"}
    if len(values["ended"]) < len(living):
        found.pop("ended", None)
    return found


def tree_memory(pid: int) -> int:
    """Resident bytes of a process and all below it, pages that they share counted for each; 0 where it is gone."""
    total = 0
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total


class Monitor:
    """Calls every reader each ``seconds``, once at the start and once at exit, and hands what they read to every sink.

    Readers and sinks run on one thread of the monitor's own. One that raises is warned about and not called again: watching
    never ends what is watched. Raises `core.errors.UserError` for ``seconds`` that are not positive.
    """

    def __init__(self, readers: Iterable[Reader], sinks: Iterable[Sink] = (), seconds: float = SECONDS) -> None:
        if not seconds > 0:
            raise UserError(f"monitor.seconds = {seconds!r}: must be more than 0, such as {SECONDS:g}")
        self._readers, self._sinks = list(readers), list(sinks)
        self._seconds = seconds
        self._kept: deque[Reading] = deque(maxlen=KEPT_READINGS)
        self._change = threading.Condition()  # guards _kept, _asked, _answered and _closing
        self._asked = self._answered = 0
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="steelyard-monitor", daemon=True)

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(EXIT_SECONDS)
        if self._thread.is_alive():
            log.warning("monitoring hangs and is left behind: a driver or the results store does not answer")

    def read_now(self, timeout: float = 1.0) -> bool:
        """Read everything once more, at an interval's edge say. Returns whether that was done in ``timeout`` seconds."""
        with self._change:
            self._asked += 1
            asked = self._asked
            self._change.notify_all()
            return self._change.wait_for(lambda: self._answered >= asked, timeout)

    def readings(self) -> list[Reading]:
        """Return what was read so far, in order; the oldest are forgotten after `KEPT_READINGS`."""
        with self._change:
            return list(self._kept)

    def _work(self) -> None:
        while True:
            with self._change:
                asked, closing = self._asked, self._closing
            batch = [reading for reader in list(self._readers) for reading in self._read(reader)]
            with self._change:
                self._kept.extend(batch)
                self._answered = asked
                self._change.notify_all()
            for sink in list(self._sinks):
                self._hand(sink, batch)
            if closing:
                return
            with self._change:
                self._change.wait_for(lambda: self._closing or self._asked > self._answered, self._seconds)

    def _read(self, reader: Reader) -> list[Reading]:
        try:
            return list(reader())
        except Exception as error:
            self._readers.remove(reader)
            log.warning("%s is read no more: %s: %s", _name(reader), type(error).__name__, error)
            return []

    def _hand(self, sink: Sink, batch: Sequence[Reading]) -> None:
        try:
            sink(batch)
        except Exception as error:
            self._sinks.remove(sink)
            log.warning("%s gets no more readings: %s: %s", _name(sink), type(error).__name__, error)


def _name(called: object) -> str:
    if isinstance(called, functools.partial):
        called = called.func
    return getattr(called, "__qualname__", type(called).__name__)
