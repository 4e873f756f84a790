"""The lightweight engine: vLLM in a process of its own, on the devices of one placement. This side imports no vLLM."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from engines.devices import visible_names
from engines.engine import EngineConfig
from engines.process_engine import ProcessEngine, child_environment

CLOSE_SECONDS = 20.0  # vLLM takes about 5 for an orderly end


class LightweightEngine(ProcessEngine):
    """vLLM on the devices of ``config``, gone with its process, which runs ``module``."""

    module = "engines.lightweight_process"

    def __init__(self, config: EngineConfig, slots: Sequence[int] = ()) -> None:
        super().__init__(
            "lightweight",
            self.module,
            config,
            model=config.model,
            environment=lightweight_environment(config, os.environ),
            close_seconds=CLOSE_SECONDS,
            orderly_while_loading=False,
            slots=slots,
        )


def lightweight_environment(config: EngineConfig, inherited: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: this one's, with the devices of ``config`` and no others to be seen."""
    environment = child_environment(inherited)
    if config.device == "cuda" and config.devices:
        environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(visible_names(config.devices, inherited))
    return environment
