"""The fleet: as the spec names it, or as this machine has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import psutil

from core.campaign import FleetSpec
from core.model.placement import GB

T = TypeVar("T")

CPU = "cpu"
# Share of RAM that one logical device of a machine without GPUs may use; the rest is the operating system's and the campaign's.
RAM_SHARE = 0.5


def resolve_fleet(spec: FleetSpec | None) -> FleetSpec:
    """Return ``spec`` with ``device`` decided, or the fleet that is found here."""
    if spec is None:
        return detect_fleet()
    if spec.device != "auto":
        return spec
    # A fleet reached over Ray is not this machine: its GPUs are taken at their word.
    device = "cuda" if spec.ray_address or spec.kuberay or _gpu_memory() else "cpu"
    return spec.model_copy(update={"device": device})


def detect_fleet() -> FleetSpec:
    """Return this machine's GPUs (the smallest one's memory counts), or one logical device with half of its RAM."""
    memory = _gpu_memory()
    if memory:
        return FleetSpec(gpus=len(memory), gpu_memory_gb=round(min(memory) / GB, 2), device="cuda")
    return FleetSpec(gpus=1, gpu_memory_gb=round(RAM_SHARE * psutil.virtual_memory().total / GB, 2), device="cpu")


def gpu_kind(fleet: FleetSpec) -> str:
    """Return the kind of device, for estimates of time: the fleet's name of its GPUs, else this machine's; ``cpu`` without any."""
    if fleet.gpu_kind is not None:
        return fleet.gpu_kind
    if fleet.device == "cpu":
        return CPU
    names = [] if fleet.ray_address or fleet.kuberay else _gpu_names()
    return names[0] if names else "GPU"


def gpus_alike() -> bool:
    """Whether all NVIDIA GPUs of this machine are of one kind; so they are where there are none."""
    return len(set(_gpu_names())) < 2


def _gpu_names() -> list[str]:
    return _asked(lambda nvml: [str(nvml.nvmlDeviceGetName(handle)) for handle in _handles(nvml)], [])


def _gpu_memory() -> list[int]:
    """Bytes of each NVIDIA GPU; empty where there is no driver."""
    return _asked(lambda nvml: [int(nvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in _handles(nvml)], [])


def _handles(nvml: Any) -> list[Any]:
    return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]


def _asked(read: Callable[[Any], T], without: T) -> T:
    """Return the value that ``read`` gets from NVIDIA's driver; ``without`` where there is none."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return without
    try:
        return read(pynvml)
    finally:
        pynvml.nvmlShutdown()
