"""vLLM's CPU platform with logical GPUs in Ray: what a GPU cluster does, without one. Imported by vLLM alone."""

from __future__ import annotations

from vllm.platforms.cpu import CpuPlatform


class CpuRayPlatform(CpuPlatform):
    """vLLM's own Ray executor runs here as it does on GPUs, one logical GPU a rank."""

    ray_device_key: str = "GPU"
