"""Devices that are promised: to one, whatever the others do, and held by its engine from when they are free."""

from __future__ import annotations

import secrets
import subprocess

import pytest

from core.schedule.turns import Demand
from engines.berth import Berth
from engines.slots import DevicePool, Held, holders
from engines.tickets import Ticket, take_idle


@pytest.fixture
def pool() -> DevicePool:
    return DevicePool(f"test-{secrets.token_hex(4)}", ("0", "1"))


@pytest.fixture
def running(pool: DevicePool) -> tuple[Held, Held]:
    """Two models at work, the second of which ends soon."""
    held = [Ticket(pool, Demand(name, 1)).take() for name in "ab"]
    first, second = held
    assert first is not None
    assert second is not None
    second.end_soon()
    return first, second


def berth_of(ticket: Ticket) -> Berth:
    berth = ticket.take_berth()
    assert berth is not None
    return berth


def test_a_device_is_promised_where_its_engine_ends_soon_and_to_one_only(
    pool: DevicePool, running: tuple[Held, Held]
) -> None:
    berth = berth_of(Ticket(pool, Demand("c", 1)))
    assert berth.devices == (1,)
    assert not berth.take()
    late = Ticket(pool, Demand("d", 1))
    assert late.take_berth() is None
    running[1].release()
    assert late.take() is None, "it is promised"
    assert take_idle(pool, 1, "replica") is None
    assert berth.take()
    assert [(holder.device, holder.label) for holder in holders(pool)] == [("0", "a"), ("1", "c")]
    assert late.take_berth() is None, "it has only begun"
    berth.release()
    assert late.take() is not None


def test_the_queue_goes_on_without_who_was_promised_a_device(pool: DevicePool, running: tuple[Held, Held]) -> None:
    berth = berth_of(Ticket(pool, Demand("c", 1)))
    late = Ticket(pool, Demand("d", 1))
    running[0].release()
    held = late.take()
    assert held is not None
    assert held.devices == (0,)
    assert not berth.take()


def test_a_promise_that_is_given_up_binds_nobody(pool: DevicePool, running: tuple[Held, Held]) -> None:
    berth_of(Ticket(pool, Demand("c", 1))).release()
    late = Ticket(pool, Demand("d", 1))
    berth_of(late).release()
    running[1].release()
    assert Ticket(pool, Demand("e", 1)).take() is not None


def test_an_engine_that_was_started_before_holds_the_device_too(pool: DevicePool, running: tuple[Held, Held]) -> None:
    berth = berth_of(Ticket(pool, Demand("c", 1)))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=berth.descriptors) as engine:
        running[1].release()
        assert berth.take()
        berth.release()
        late = Ticket(pool, Demand("d", 1))
        assert late.take() is None
        assert [holder.label for holder in holders(pool)] == ["a", "c"]
        engine.kill()
        engine.wait()
        assert late.take() is not None


@pytest.mark.usefixtures("running")
def test_whoever_comes_first_is_promised_the_device_whoever_asks_first(pool: DevicePool) -> None:
    first, second = Ticket(pool, Demand("c", 1)), Ticket(pool, Demand("d", 1))
    assert second.take_berth() is None
    berth_of(first).release()
    second.drop()


@pytest.mark.usefixtures("running")
def test_nobody_overtakes_a_gang(pool: DevicePool) -> None:
    gang = Ticket(pool, Demand("gang", 2))
    small = Ticket(pool, Demand("small", 1))
    assert small.take_berth() is None
    assert gang.take_berth() is None
    gang.drop()
    berth_of(small).release()


def test_an_engine_that_has_ended_says_nothing_more(pool: DevicePool, running: tuple[Held, Held]) -> None:
    running[0].release()
    running[0].end_soon()
    assert [holder.label for holder in holders(pool)] == ["b"]
