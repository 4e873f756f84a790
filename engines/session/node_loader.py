"""vLLM's loading of weights on a node that may have to fetch them first. Imported in vLLM's worker processes only."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import nn
from vllm.config import ModelConfig
from vllm.config.load import LoadConfig
from vllm.model_executor.model_loader import get_model_loader, register_model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader

from core.model.checkpoint import Checkpoint
from core.model.weights import fetch_checkpoint
from engines.engine import FETCHING


@register_model_loader(FETCHING)
class FetchingLoader(BaseModelLoader):
    """Loads as vLLM would have, from a directory of this node. Of the ranks on a node the first fetches it, and the others wait."""

    def __init__(self, load_config: LoadConfig) -> None:
        super().__init__(load_config)
        wanted = load_config.model_loader_extra_config
        self._checkpoint = Checkpoint(**wanted["checkpoint"])
        usual = {"load_format": "auto", "model_loader_extra_config": {}}
        self._inner = get_model_loader(replace(load_config, **{**usual, **wanted["inner"]}))

    def download_model(self, model_config: ModelConfig) -> None:
        """Fetch it."""
        fetch_checkpoint(self._checkpoint)

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        """Fetch it, and load it into ``model``."""
        here = copy.copy(model_config)
        here.model = str(fetch_checkpoint(self._checkpoint))
        self._inner.load_weights(model, here)
