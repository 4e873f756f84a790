"""Tickets across processes: whose turn it is, by what everybody wrote down (`tests/core/planning/schedule/test_turns.py` has
the rules)."""

from __future__ import annotations

import secrets

import pytest

from core.planning.schedule.turns import Demand
from engines.host.queue import Ticket, devices_lacking, take_idle
from engines.host.slots import DevicePool, holders


@pytest.fixture
def pool() -> DevicePool:
    return DevicePool(f"test-{secrets.token_hex(4)}", ("0", "1"))


def test_a_gang_is_served_before_those_that_came_later(pool: DevicePool) -> None:
    held = Ticket(pool, Demand("a", 1)).take()
    gang, small = Ticket(pool, Demand("gang", 2)), Ticket(pool, Demand("small", 1))
    assert gang.take() is None
    assert small.take() is None
    assert gang.is_first()
    assert not small.is_first()
    assert held is not None
    held.release()
    assert gang.take() is not None


def test_whoever_leaves_the_queue_or_dies_in_it_holds_nobody_up(pool: DevicePool) -> None:
    held = Ticket(pool, Demand("a", 1)).take()
    gang, small = Ticket(pool, Demand("gang", 2)), Ticket(pool, Demand("small", 1))
    assert small.take() is None
    gang.drop()
    assert small.take() is not None
    assert held is not None


def test_queues_of_other_devices_do_not_wait_for_each_other(pool: DevicePool) -> None:
    elsewhere = DevicePool(f"{pool.kind}-other", ("0",))
    gang = Ticket(pool, Demand("gang", 2))
    assert Ticket(elsewhere, Demand("small", 1)).take() is not None
    assert gang.take() is not None


def test_an_idle_device_is_taken_only_where_nobody_waits(pool: DevicePool) -> None:
    held = Ticket(pool, Demand("a", 1)).take()
    extra = take_idle(pool, 1, "a (replica)")
    assert held is not None
    assert extra is not None
    assert (held.devices, extra.devices) == ((0,), (1,))
    assert [holder.label for holder in holders(pool)] == ["a", "a (replica)"]
    assert take_idle(pool, 1, "another") is None
    extra.release()
    waiting = Ticket(pool, Demand("gang", 2))
    assert take_idle(pool, 1, "another") is None
    waiting.drop()
    assert take_idle(pool, 1, "another") is not None


def test_replicas_give_way_to_who_could_start_then(pool: DevicePool) -> None:
    assert devices_lacking(pool) == 0
    held, extra = Ticket(pool, Demand("a", 1)).take(), take_idle(pool, 1, "a (replica)")
    assert held is not None
    assert extra is not None
    gang = Ticket(pool, Demand("gang", 2))
    assert devices_lacking(pool) == 0  # the first device would still be missing
    short = Ticket(pool, Demand("short", 1, seconds=5.0))
    assert devices_lacking(pool) == 1
    extra.release()
    assert devices_lacking(pool) == 0  # it only has to look
    assert short.take() is not None
    gang.drop()
    held.release()


def test_who_is_not_ready_is_not_overtaken_and_keeps_its_place(pool: DevicePool) -> None:
    gang = Ticket(pool, Demand("gang", 2, seconds=900.0), ready=False)
    small = Ticket(pool, Demand("small", 1, seconds=900.0))
    assert small.take() is None
    gang.be_ready()
    assert small.take() is None
    held = gang.take()
    assert held is not None
    assert held.devices == (0, 1)
    small.drop()


def test_a_short_model_fills_a_gap_before_a_gang_and_a_long_one_does_not(pool: DevicePool) -> None:
    held = Ticket(pool, Demand("a", 1, seconds=100.0)).take()
    assert held is not None
    gang = Ticket(pool, Demand("gang", 2, seconds=500.0))
    long, short = Ticket(pool, Demand("long", 1, seconds=150.0)), Ticket(pool, Demand("short", 1, seconds=60.0))
    assert long.take() is None
    filler = short.take()
    assert filler is not None
    for each in (gang, long):
        each.drop()


def test_more_devices_than_there_are_is_refused(pool: DevicePool) -> None:
    with pytest.raises(ValueError, match="3 devices asked of 2"):
        Ticket(pool, Demand("a", 3))
