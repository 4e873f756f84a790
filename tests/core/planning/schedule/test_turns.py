"""Whose turn it is for the devices of a pool."""

from __future__ import annotations

from core.planning.schedule.turns import (
    SETTLE_SECONDS,
    Demand,
    HeldDevices,
    Queue,
    Wish,
    lacking,
    turn,
    turn_if_free,
    waits,
)

NOW = 1_000_000.0


def wish(gpus: int = 1, seconds: float = 100.0, *, since: float = NOW, ready: bool = True, **more: object) -> Wish:
    return Wish(Demand("m", gpus, seconds, **more), since, ready)  # type: ignore[arg-type]


def queue(
    size: int, wishes: dict[str, Wish], holdings: dict[str, HeldDevices] | None = None, now: float = NOW
) -> Queue:
    return Queue(size, wishes, holdings or {}, now)


def turns(found: Queue) -> dict[str, tuple[int, ...]]:
    return {key: devices for key in found.wishes if (devices := turn(found, key))}


def test_the_longest_goes_first_and_devices_are_given_out_once() -> None:
    wishes = {"a": wish(seconds=10), "b": wish(seconds=300), "c": wish(seconds=200)}
    assert turns(queue(2, wishes)) == {"b": (0,), "c": (1,)}


def test_a_model_that_others_are_compared_with_goes_before_its_campaign_and_no_other() -> None:
    wishes = {
        "long": wish(seconds=300, campaign="x"),
        "base": wish(seconds=10, campaign="x", leads=True),
        "other": wish(seconds=20, campaign="y", priority=1),
    }
    assert turns(queue(2, wishes)) == {"other": (0,), "base": (1,)}


def test_equals_go_in_the_order_of_their_tickets() -> None:
    assert turns(queue(1, {"1": wish(), "2": wish()})) == {"1": (0,)}


def test_what_is_held_is_not_given_out_again() -> None:
    held = {"x": HeldDevices(Demand("x", 1, 500), (0,), NOW - 10)}
    assert turns(queue(2, {"a": wish()}, held)) == {"a": (1,)}


def test_a_gap_before_a_gang_is_filled_by_who_is_done_in_time() -> None:
    held = {"x": HeldDevices(Demand("x", 1, 100), (0,), NOW - 20)}
    wishes = {"gang": wish(2, 500), "long": wish(1, 90), "short": wish(1, 70)}
    assert turns(queue(2, wishes, held)) == {"short": (1,)}


def test_one_that_is_late_is_expected_to_end_soon() -> None:
    held = {"x": HeldDevices(Demand("x", 1, 100), (0,), NOW - 500)}
    wishes = {"gang": wish(2, 500), "small": wish(1, 70)}
    assert turns(queue(2, wishes, held)) == {}


def test_priority_goes_before_length() -> None:
    assert turns(queue(1, {"a": wish(seconds=500), "b": wish(seconds=5, priority=1)})) == {"b": (0,)}


def test_campaigns_take_turns() -> None:
    held = {"x": HeldDevices(Demand("x", 1, 100, "nightly"), (0,), NOW)}
    wishes = {"a": wish(seconds=500, campaign="nightly"), "b": wish(seconds=5, campaign="mine")}
    assert turns(queue(2, wishes, held)) == {"b": (1,)}


def test_who_is_not_ready_keeps_its_devices_free_for_a_while_only() -> None:
    wishes = {"a": wish(seconds=500, ready=False), "b": wish()}
    assert turns(queue(1, wishes)) == {"a": (0,)}
    assert turns(queue(1, wishes, now=NOW + SETTLE_SECONDS + 1)) == {"b": (0,)}


def test_nobody_waits_for_one_that_is_long_not_ready() -> None:
    assert waits(queue(1, {"a": wish(ready=False)}))
    assert not waits(queue(1, {"a": wish(ready=False)}, now=NOW + SETTLE_SECONDS + 1))
    assert not waits(queue(1, {}))


def test_one_that_the_pool_can_never_serve_holds_nobody_up() -> None:
    assert turns(queue(2, {"a": wish(3, 900), "b": wish()})) == {"b": (0,)}


def test_whose_turn_it_would_be_on_free_devices() -> None:
    held = {"x": HeldDevices(Demand("x", 2), (0, 1), NOW)}
    found = queue(2, {"gang": wish(2, 500), "small": wish()}, held)
    assert turns(found) == {}
    assert turn_if_free(found, "gang")
    assert not turn_if_free(found, "small")


def test_replicas_give_way_where_that_lets_somebody_start() -> None:
    replica = HeldDevices(Demand("x (replica)", 1), (1,), NOW, gives_way=True)
    own = HeldDevices(Demand("x", 1, 500), (0,), NOW)
    assert lacking(queue(2, {}, {"x": own, "y": replica})) == 0
    assert lacking(queue(2, {"a": wish()}, {"x": own, "y": replica})) == 1
    assert lacking(queue(2, {"a": wish(ready=False)}, {"x": own, "y": replica})) == 0
    assert lacking(queue(2, {"gang": wish(2)}, {"x": own, "y": replica})) == 0
    assert lacking(queue(3, {"a": wish()}, {"x": own, "y": replica})) == 0  # one is free
