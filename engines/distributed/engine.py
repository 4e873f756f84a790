"""The distributed engine: a client of a model service on a Ray cluster. This side imports neither vLLM nor Ray."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from core.errors import EngineDiedError
from engines.distributed.cluster import Cluster, ClusterSpec, attach, driver_environment
from engines.engine import EngineConfig, EngineInfo
from engines.process.engine import ProcessEngine, child_environment

CLOSE_SECONDS = 60.0  # the model's end, then the cluster's


@dataclass(frozen=True)
class Opening:
    """The input of the client process: a model on a cluster, kept loaded for ``idle_seconds`` after its last client."""

    config: EngineConfig
    cluster: ClusterSpec
    idle_seconds: float


class DistributedEngine(ProcessEngine):
    """A model service on a Ray cluster: found loaded, or loaded.

    Ray's driver lives in the engine's process: a process can drive one cluster only, and ends when that does.
    """

    def __init__(self, config: EngineConfig, cluster: ClusterSpec, idle_seconds: float) -> None:
        super().__init__(
            "distributed",
            "engines.distributed.client_process",
            Opening(config, cluster, idle_seconds),
            model=config.model,
            environment={**child_environment(os.environ), **driver_environment(cluster)},
            close_seconds=CLOSE_SECONDS,
            orderly_while_loading=True,
        )


def service_name(config: EngineConfig) -> str:
    """Name of the actor that serves ``config``: the same for the same model loaded the same way."""
    shared = replace(config, devices=())
    digest = hashlib.sha256(json.dumps(asdict(shared), sort_keys=True, default=str).encode()).hexdigest()
    return f"{Path(config.model).name}-{digest[:16]}"


class ServiceReplica(DistributedEngine):
    """A service that is never kept: it starts ``cluster``, which takes over the slots ``held``, and ends it."""

    def __init__(self, config: EngineConfig, cluster: ClusterSpec, held: Sequence[int]) -> None:
        super().__init__(config, cluster, 0.0)
        self._service, self._wanted, self._held = service_name(config), cluster, held
        self._joining = threading.Lock()  # guards what follows
        self._cluster: Cluster | None = None
        self._closed = False

    def open(self) -> EngineInfo:
        """Start the cluster, and load the model on it."""
        cluster = attach(self._wanted, self._service, self._held)
        with self._joining:
            wanted = not self._closed
            self._cluster = cluster if wanted else None
        if not wanted:
            cluster.leave(0.0)
            raise EngineDiedError("the engine was closed")
        return super().open()

    def close(self, *, keep: bool = True) -> None:
        """End the model and its cluster, which has ended on return."""
        with self._joining:
            cluster, self._cluster, self._closed = self._cluster, None, True
        super().close(keep=False)
        if cluster is not None:
            cluster.leave(0.0)
