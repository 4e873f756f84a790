"""vLLM platform plugin for machines without GPUs: Ray tensor parallel, and forked processes; does nothing unless asked for.

vLLM calls `register` in every process that it runs in, on GPU machines too, so this module imports no vLLM.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

ASKED_BY = "STEELYARD_CPU_RAY"  # set to 1 by the distributed engine where its cluster declares logical GPUs
FORK_ASKED_BY = "STEELYARD_CPU_FORK"  # set to 1 by the lightweight engine
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd")  # NVIDIA's and AMD's


def register() -> str | None:
    """Return the dotted path of the platform class, or None where none is asked for or a GPU is present."""
    if any(Path(driver).exists() for driver in GPU_DRIVERS):
        return None
    if os.environ.get(ASKED_BY) == "1":
        return "engines.session.cpu_fork_platform.CpuRayPlatform"
    if os.environ.get(FORK_ASKED_BY) == "1":
        return "engines.session.cpu_fork_platform.CpuForkPlatform"
    return None


def fork_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process whose vLLM forks its own (`engines.session.cpu_fork_platform`).

    One OpenMP runtime for torch and vLLM, preloaded as vLLM itself does for spawned workers, with one thread until a worker is
    told how many: a process that has used more cannot be forked. And nothing is compiled, which is decided when vLLM is imported:
    it compiles one small function even where it is eager, for 20 s and nothing.
    """
    preloaded = environment.get("LD_PRELOAD", "")
    if not any(name in preloaded for name in ("libgomp", "libomp", "libiomp")):
        preloaded = ":".join(filter(None, (preloaded, _libgomp_of_torch())))
    made = {FORK_ASKED_BY: "1", "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    return {**made, "LD_PRELOAD": preloaded} if preloaded else made


def _libgomp_of_torch() -> str:
    found = importlib.util.find_spec("torch")
    folders = [Path(place) for place in (found.submodule_search_locations or ())] if found else []
    libraries = (
        library
        for torch in folders
        for folder in (torch.parent / "torch.libs", torch / "lib")
        for library in sorted(folder.glob("libgomp*.so*"))
    )
    return str(next(libraries, ""))
