"""Our additions to vLLM's workers: calls, and a loader that fetches weights. Imported in vLLM's worker processes only."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import nn
from vllm.config import ModelConfig
from vllm.config.load import LoadConfig
from vllm.model_executor.model_loader import get_model_loader, register_model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader

from core.model.checkpoint import Checkpoint
from core.model.weights import fetch_checkpoint
from engines.engine import FETCHING
from engines.host.folder import mapped
from engines.session import score_rows_v1, score_rows_v2

# In the names of what vLLM's ranks on a CPU compute in, and of the queues of all ranks.
SHARED = ("cpushm_", "psm_")


class WorkerExtension:
    """Mixed into vLLM's worker class by ``worker_extension_cls``."""

    def steelyard_score_rows(self: Any, on: bool) -> bool:
        """Switch to scored rows only (`engines.session.score_rows`), or back. Returns whether this worker complies."""
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


@register_model_loader(FETCHING)
class FetchingLoader(BaseModelLoader):
    """Loads as vLLM would have, on a node that may have to fetch the weights first: one rank does, the others there wait."""

    def __init__(self, load_config: LoadConfig) -> None:
        super().__init__(load_config)
        wanted = load_config.model_loader_extra_config
        self._checkpoint = Checkpoint(**wanted["checkpoint"])
        usual = {"load_format": "auto", "model_loader_extra_config": {}}
        self._inner = get_model_loader(replace(load_config, **{**usual, **wanted["inner"]}))

    def download_model(self, model_config: ModelConfig) -> None:
        """Fetch the checkpoint."""
        fetch_checkpoint(self._checkpoint)

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        """Fetch the checkpoint, and load it into ``model``."""
        here = copy.copy(model_config)
        here.model = str(fetch_checkpoint(self._checkpoint))
        self._inner.load_weights(model, here)
