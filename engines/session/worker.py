"""What vLLM's workers do for us besides, called by ``collective_rpc``. Imported in vLLM's worker processes only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.host.folder import mapped
from engines.session import node_loader, score_rows_v1, score_rows_v2  # noqa: F401 # the loader registers itself

if TYPE_CHECKING:
    from vllm.v1.worker.gpu_worker import Worker

# In the names of what vLLM's ranks on a CPU compute in, and of the queues of all ranks.
SHARED = ("cpushm_", "psm_")


class WorkerExtension:
    """Mixed into vLLM's worker class by ``worker_extension_cls``."""

    def steelyard_score_rows(self: Worker, on: bool) -> bool:
        """Switch to scored rows only (`engines.session.score_rows`), or back. Returns whether this worker now does as told."""
        return any(version.switch(self.model_runner, on) for version in (score_rows_v2, score_rows_v1))

    def steelyard_unlink_shared_memory(self) -> int:
        """Remove the names of the shared memory that all ranks have joined, so that it goes with the last of them.

        vLLM leaves it behind where it is killed, and on a CPU always, named by a port: a later engine on that port does not start.
        Returns how many names this rank removed.
        """
        shared = [path for path in mapped("self") if any(name in path.name for name in SHARED)]
        removed = [path for path in shared if path.exists()]
        for path in removed:
            path.unlink(missing_ok=True)  # another rank is at it too
        return len(removed)
