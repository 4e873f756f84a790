"""Devices across processes: never two holders, and none that outlives its holder."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.campaign import FleetSpec
from core.errors import EngineDiedError
from core.planning.schedule.turns import Demand
from engines.host import slots
from engines.host.queue import Ticket
from engines.host.slots import INHERITED, DevicePool, cores_of, device_pool, holders

ROOT = Path(__file__).resolve().parents[3]

HOLDER = """
import sys
from core.planning.schedule.turns import Demand
from engines.host.slots import DevicePool
from engines.host.queue import Ticket
held = Ticket(DevicePool(sys.argv[1], ("0", "1")), Demand("another campaign", int(sys.argv[2]))).take()
print(held.devices if held else None, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def pool() -> DevicePool:
    return DevicePool(f"test-{secrets.token_hex(4)}", ("0", "1"))


def another_process(pool: DevicePool, gpus: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, pool.kind, str(gpus)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() != "None\n"
    return process


def test_each_holder_gets_its_own_device(pool: DevicePool) -> None:
    first, second = Ticket(pool, Demand("a", 1)).take(), Ticket(pool, Demand("b", 1)).take()
    assert first is not None
    assert second is not None
    assert (first.devices, second.devices) == ((0,), (1,))
    assert Ticket(pool, Demand("c", 1)).take() is None


def test_a_device_comes_back_when_its_holder_lets_go(pool: DevicePool) -> None:
    held = Ticket(pool, Demand("a", 2)).take()
    waiting = Ticket(pool, Demand("b", 1))
    assert waiting.take() is None
    assert held is not None
    held.release()
    assert waiting.take() is not None


def test_a_killed_process_gives_its_devices_back(pool: DevicePool) -> None:
    with another_process(pool, 2) as process:
        waiting = Ticket(pool, Demand("b", 1))
        assert waiting.take() is None
        assert [(holder.device, holder.label, holder.pid) for holder in holders(pool)] == [
            ("0", "another campaign", process.pid),
            ("1", "another campaign", process.pid),
        ]
        process.kill()
        process.wait()
        assert waiting.take() is not None


def test_a_device_is_held_as_long_as_its_engine_lives(pool: DevicePool) -> None:
    held = Ticket(pool, Demand("a", 1)).take()
    assert held is not None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=held.descriptors) as engine:
        held.release()
        assert [holder.device for holder in holders(pool)] == ["0"]
        engine.kill()
        engine.wait()
        assert holders(pool) == []


def test_a_keeper_holds_what_it_was_started_with_or_takes_it(pool: DevicePool) -> None:
    held = Ticket(pool, Demand("a", 1)).take()
    assert held is not None
    given = {INHERITED: ",".join(map(str, held.descriptors))}
    assert slots.keep(pool.kind, ["0"], "keeper", given) == held.descriptors
    with pytest.raises(EngineDiedError, match="device 0 is in use"):
        slots.keep(pool.kind, ["0"], "keeper", {})
    taken = slots.keep(pool.kind, ["1"], "keeper", {})
    assert [holder.device for holder in holders(pool)] == ["0", "1"]
    for descriptor in taken:
        os.close(descriptor)


def test_a_holder_that_has_not_written_yet_is_no_error(pool: DevicePool) -> None:
    held = Ticket(pool, Demand("a", 1)).take()
    assert held is not None
    os.ftruncate(held.descriptors[0], 0)
    assert holders(pool) == []
    with slots.ledger():
        slots.write_holder({"0": held.descriptors[0]}, Demand("b", 1), "key")
    assert [(holder.label, holder.pid) for holder in holders(pool)] == [("b", os.getpid())]


def test_engines_get_the_devices_of_their_place() -> None:
    logical = FleetSpec(nodes=2, gpus=2, device="cpu")
    assert device_pool(logical, "distributed", {}) == DevicePool("cpu", ("0", "1", "2", "3"))
    gpus = FleetSpec(nodes=2, gpus=2, device="cuda", ray_address="head:6379")
    assert device_pool(gpus, "distributed", {}) == DevicePool("ray-head-6379", ("0", "1", "2", "3"))
    assert device_pool(gpus, "lightweight", {"CUDA_VISIBLE_DEVICES": "4,7"}) == DevicePool("cuda", ("4", "7"))


@pytest.mark.parametrize(
    ("devices", "of", "cores", "expected"),
    [
        ((0,), 1, range(8), tuple(range(8))),
        ((1,), 2, range(8), (4, 5, 6, 7)),
        ((1,), 2, {5, 3}, (5,)),  # those this process may use
        ((0, 1), 4, range(4), (0, 1)),
        ((3,), 4, range(2), (1,)),  # more devices than cores
        ((2,), 3, range(8), (4, 5)),
    ],
)
def test_devices_share_the_cores(devices: tuple[int, ...], of: int, cores: set[int], expected: tuple[int, ...]) -> None:
    assert cores_of(devices, of, cores) == expected


@given(of=st.integers(1, 16), cores=st.sets(st.integers(0, 200), min_size=1, max_size=64))
def test_no_two_devices_have_a_core_in_common_while_there_are_enough(of: int, cores: set[int]) -> None:
    shares = [set(cores_of((device,), of, cores)) for device in range(of)]
    assert all(share and share <= cores for share in shares)
    if len(cores) >= of:
        assert len(set.union(*shares)) == sum(map(len, shares))


def test_a_process_and_what_it_starts_keep_to_their_cores() -> None:
    code = """
import os, subprocess, sys, threading
from engines.host.slots import keep_to
begun = threading.Event()
seen = []
def work():
    begun.wait()
    seen.append(os.sched_getaffinity(0))
thread = threading.Thread(target=work)
thread.start()
keep_to((min(os.sched_getaffinity(0)),))
begun.set()
thread.join()
child = subprocess.check_output([sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"])
print(len(os.sched_getaffinity(0)), len(seen[0]), int(child))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "1"]
