import psutil
import pynvml
import pytest

from core.campaign import FleetSpec
from core.model.fleet import detect_fleet, gpus_alike, resolve_fleet


def test_a_fleet_that_says_its_device_is_taken_at_its_word() -> None:
    spec = FleetSpec(nodes=2, gpus=8, device="cuda")
    assert resolve_fleet(spec) is spec


def test_a_fleet_on_ray_is_not_this_machine() -> None:
    assert resolve_fleet(FleetSpec(gpus=8, ray_address="head:6379")).device == "cuda"


def test_the_device_is_decided_by_looking() -> None:
    assert resolve_fleet(FleetSpec(gpus=3)).device == detect_fleet().device


def test_a_logical_device_never_has_more_than_this_machines_memory() -> None:
    fleet = detect_fleet()
    assert fleet.gpus >= 1
    assert fleet.device == "cuda" or fleet.gpu_memory_gb * 1e9 < psutil.virtual_memory().total


def test_gpus_differ_where_their_names_do(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {0: "NVIDIA H100", 1: "NVIDIA H100", 2: "NVIDIA L4"}
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", names.__getitem__)
    for count, alike in ((0, True), (1, True), (2, True), (3, False)):
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda count=count: count)
        assert gpus_alike() is alike
