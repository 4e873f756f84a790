"""A further service of a model that has one: on a local Ray cluster of its own, which lives as long as the service."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from core.errors import EngineDiedError
from core.request import Request, Response
from engines.distributed.cluster import Cluster, ClusterSpec, attach
from engines.distributed.engine import DistributedEngine, service_name
from engines.engine import EngineConfig, EngineInfo
from engines.stop import Stop


class ServiceReplica:
    """An `engines.engine.Engine` that starts ``cluster``, which takes over the slots ``held``, and ends it. Never kept."""

    def __init__(self, config: EngineConfig, cluster: ClusterSpec, held: Sequence[int]) -> None:
        self._engine = DistributedEngine(config, cluster, 0.0)
        self._service, self._wanted, self._slots = service_name(config), cluster, held
        self._lock = threading.Lock()  # guards what follows
        self._cluster: Cluster | None = None
        self._closed = False

    def open(self) -> EngineInfo:
        """See `engines.engine.Engine`."""
        cluster = attach(self._wanted, self._service, self._slots)
        with self._lock:
            wanted = not self._closed
            self._cluster = cluster if wanted else None
        if not wanted:
            cluster.leave(0.0)
            raise EngineDiedError("the engine was closed")
        return self._engine.open()

    def run(self, requests: Sequence[Request], stop: Stop | None = None) -> Iterator[Response]:
        """See `engines.engine.Engine`."""
        return self._engine.run(requests, stop)

    def stats(self) -> dict[str, float]:
        """See `engines.engine.Engine`."""
        return self._engine.stats()

    def close(self, *, keep: bool = True) -> None:
        """See `engines.engine.Engine`. On return the cluster has ended."""
        with self._lock:
            cluster, self._cluster, self._closed = self._cluster, None, True
        self._engine.close(keep=False)
        if cluster is not None:
            cluster.leave(0.0)
