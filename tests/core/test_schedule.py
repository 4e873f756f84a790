from core.schedule import Demand, next_to_start


def test_the_largest_starts_first() -> None:
    assert next_to_start([Demand(0, 1), Demand(1, 4)], free=4) == Demand(1, 4)


def test_equals_start_in_campaign_order() -> None:
    assert next_to_start([Demand(2, 1), Demand(1, 1)], free=1) == Demand(1, 1)


def test_small_models_do_not_overtake_a_waiting_gang() -> None:
    assert next_to_start([Demand(0, 1), Demand(1, 4)], free=3) is None


def test_nobody_waits_nobody_starts() -> None:
    assert next_to_start([], free=8) is None
