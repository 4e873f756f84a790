"""The latest readings for Prometheus, served by its own client library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from core.errors import UserError
from core.monitor.readings import Reading

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

NAME = "steelyard_reading"
LABELS = ("source", "device", "metric", "model")


class Exporter:
    """Serves the latest readings at ``http://<address>:<port>/metrics`` until it is closed. Safe for several threads.

    Port 0 takes a free one, which ``port`` then names. Raises `core.errors.UserError` where nothing can listen there.
    """

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        from prometheus_client import CollectorRegistry, start_http_server

        self._latest: dict[str, dict[tuple[str, str, str], float]] = {}
        self._lock = threading.Lock()
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, address, registry)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"prometheus = {f'{address}:{port}'!r}: cannot listen there ({error}); choose a free port of this machine"
            ) from error
        self.port: int = self._server.server_port

    def sink(self, model: str) -> Callable[[Sequence[Reading]], None]:
        """Return a sink of `core.monitor.readings.Monitor` whose readings are shown as those of ``model``."""

        def show(readings: Sequence[Reading]) -> None:
            with self._lock:
                shown = self._latest.setdefault(model, {})
                shown.update(((each.source, each.device, each.metric), each.value) for each in readings)

        return show

    def forget(self, model: str) -> None:
        """Show no more of ``model``: its engine is gone."""
        with self._lock:
            self._latest.pop(model, None)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield one gauge for each number, as prometheus_client asks of a collector."""
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(NAME, "Latest reading; docs/monitoring.md lists the units.", labels=LABELS)
        with self._lock:
            for model, shown in self._latest.items():
                for key, value in shown.items():
                    family.add_metric((*key, model), value)
        yield family

    def close(self) -> None:
        """Stop serving. Safe to call twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
