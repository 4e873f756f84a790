"""vLLM's CPU platform with processes that are forked, as they are on GPUs. Imported by vLLM alone.

vLLM spawns them on CPUs, so that each OpenMP runtime reads its threads and cores from the environment when it is loaded. Each
then imports everything anew: 17 of the 23 s that a small model takes to load. Forked ones are told their threads and cores.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any

import torch
from vllm import envs
from vllm.platforms.cpu import CpuPlatform

# A worker's cores, where vLLM writes them for the OpenMP runtime that is preloaded.
CORES = ("GOMP_CPU_AFFINITY", "OMP_PLACES", "KMP_AFFINITY")


class CpuForkPlatform(CpuPlatform):
    """For a process with `engines.session.cpu_platform.fork_environment`: no OpenMP thread may run before a fork."""

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        """See `vllm.platforms.interface.Platform`."""
        super().check_and_update_config(vllm_config)
        # What compiles has to be set up before torch is imported; and unbound workers take as many threads as they like.
        if vllm_config.model_config.enforce_eager and envs.VLLM_CPU_OMP_THREADS_BIND != "nobind":
            _bind_after_forks()
            os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        else:
            os.environ.pop("TORCHDYNAMO_DISABLE", None)


@functools.cache
def _bind_after_forks() -> None:
    os.register_at_fork(after_in_child=_bind)


def _bind() -> None:
    """Keep to the cores, and use the threads, that vLLM has put into the environment of a worker that it starts."""
    for name in CORES:
        if told := os.environ.get(name):
            cores = cores_in(told)
            os.sched_setaffinity(0, cores)
            torch.set_num_threads(len(cores))
            return


def cores_in(told: str) -> list[int]:
    """Return the core numbers in ``0 1``, ``{0,1}`` or ``granularity=fine,explicit,proclist=[0,1]``."""
    return [int(number) for number in re.findall(r"\d+", told)]


class CpuRayPlatform(CpuPlatform):
    """vLLM's own Ray executor runs here as it does on GPUs, one logical GPU a rank."""

    ray_device_key: str = "GPU"
