"""vLLM platform plugin for Ray tensor parallel on machines without GPUs; does nothing unless asked for.

vLLM calls `register` in every process that it runs in, on GPU machines too, so this module imports no vLLM.
"""

from __future__ import annotations

import os
from pathlib import Path

ASKED_BY = "STEELYARD_CPU_RAY"  # set to 1 by the distributed engine where its cluster declares logical GPUs
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd")  # NVIDIA's and AMD's


def register() -> str | None:
    """Dotted path of the platform class, or None where nobody asked for it or a GPU is present."""
    if os.environ.get(ASKED_BY) != "1" or any(Path(driver).exists() for driver in GPU_DRIVERS):
        return None
    return "engines.cpu_ray_platform.CpuRayPlatform"
