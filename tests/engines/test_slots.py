"""Devices across processes: never two holders, and none that outlives its holder."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from core.campaign import FleetSpec
from core.errors import EngineDiedError
from engines import slots
from engines.devices import INHERITED
from engines.slots import DevicePool, Ticket, device_pool, holders, lacking, take_idle

ROOT = Path(__file__).resolve().parents[2]

HOLDER = """
import sys
from engines.slots import DevicePool, Ticket
held = Ticket(DevicePool(sys.argv[1], ("0", "1")), int(sys.argv[2]), "another campaign").take()
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
    first, second = Ticket(pool, 1, "a").take(), Ticket(pool, 1, "b").take()
    assert first is not None
    assert second is not None
    assert (first.devices, second.devices) == ((0,), (1,))
    assert Ticket(pool, 1, "c").take() is None


def test_a_device_comes_back_when_its_holder_lets_go(pool: DevicePool) -> None:
    held = Ticket(pool, 2, "a").take()
    waiting = Ticket(pool, 1, "b")
    assert waiting.take() is None
    assert held is not None
    held.release()
    assert waiting.take() is not None


def test_a_killed_process_gives_its_devices_back(pool: DevicePool) -> None:
    with another_process(pool, 2) as process:
        waiting = Ticket(pool, 1, "b")
        assert waiting.take() is None
        assert [(holder.device, holder.label, holder.pid) for holder in holders(pool)] == [
            ("0", "another campaign", process.pid),
            ("1", "another campaign", process.pid),
        ]
        process.kill()
        process.wait()
        assert waiting.take() is not None


def test_a_device_is_held_as_long_as_its_engine_lives(pool: DevicePool) -> None:
    held = Ticket(pool, 1, "a").take()
    assert held is not None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=held.descriptors) as engine:
        held.release()
        assert [holder.device for holder in holders(pool)] == ["0"]
        engine.kill()
        engine.wait()
        assert holders(pool) == []


def test_a_gang_is_served_before_those_that_came_later(pool: DevicePool) -> None:
    held = Ticket(pool, 1, "a").take()
    gang, small = Ticket(pool, 2, "gang"), Ticket(pool, 1, "small")
    assert gang.take() is None
    assert small.take() is None
    assert gang.is_first()
    assert not small.is_first()
    assert held is not None
    held.release()
    assert gang.take() is not None


def test_whoever_leaves_the_queue_or_dies_in_it_holds_nobody_up(pool: DevicePool) -> None:
    held = Ticket(pool, 1, "a").take()
    gang, small = Ticket(pool, 2, "gang"), Ticket(pool, 1, "small")
    assert small.take() is None
    gang.drop()
    assert small.take() is not None
    assert held is not None


def test_queues_of_other_devices_do_not_wait_for_each_other(pool: DevicePool) -> None:
    elsewhere = DevicePool(f"{pool.kind}-other", ("0",))
    gang = Ticket(pool, 2, "gang")
    assert Ticket(elsewhere, 1, "small").take() is not None
    assert gang.take() is not None


def test_an_idle_device_is_taken_only_where_nobody_waits(pool: DevicePool) -> None:
    held = Ticket(pool, 1, "a").take()
    extra = take_idle(pool, 1, "a (replica)")
    assert held is not None
    assert extra is not None
    assert (held.devices, extra.devices) == ((0,), (1,))
    assert [holder.label for holder in holders(pool)] == ["a", "a (replica)"]
    assert take_idle(pool, 1, "another") is None
    extra.release()
    waiting = Ticket(pool, 2, "gang")
    assert take_idle(pool, 1, "another") is None
    waiting.drop()
    assert take_idle(pool, 1, "another") is not None


def test_what_the_next_in_line_lacks(pool: DevicePool) -> None:
    assert lacking(pool) == 0
    held = Ticket(pool, 2, "a").take()
    assert held is not None
    small = Ticket(pool, 1, "small")
    assert lacking(pool) == 1
    gang = Ticket(pool, 2, "gang")
    assert lacking(pool) == 2
    gang.drop()
    held.release()
    assert lacking(pool) == 0  # it only has to look
    small.drop()


def test_more_devices_than_there_are_is_refused(pool: DevicePool) -> None:
    with pytest.raises(ValueError, match="3 devices asked of 2"):
        Ticket(pool, 3, "a")


def test_a_keeper_holds_what_it_was_started_with_or_takes_it(pool: DevicePool) -> None:
    held = Ticket(pool, 1, "a").take()
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
    held = Ticket(pool, 1, "a").take()
    assert held is not None
    os.ftruncate(held.descriptors[0], 0)
    assert holders(pool) == []
    os.pwrite(held.descriptors[0], json.dumps({"label": "a", "pid": 1}).encode(), 0)
    assert holders(pool)[0].pid == 1


def test_engines_get_the_devices_of_their_place() -> None:
    logical = FleetSpec(nodes=2, gpus=2, device="cpu")
    assert device_pool(logical, "distributed", {}) == DevicePool("cpu", ("0", "1", "2", "3"))
    gpus = FleetSpec(nodes=2, gpus=2, device="cuda", ray_address="head:6379")
    assert device_pool(gpus, "distributed", {}) == DevicePool("ray-head-6379", ("0", "1", "2", "3"))
    assert device_pool(gpus, "lightweight", {"CUDA_VISIBLE_DEVICES": "4,7"}) == DevicePool("cuda", ("4", "7"))
