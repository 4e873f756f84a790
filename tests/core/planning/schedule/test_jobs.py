from core.planning.schedule.jobs import Job, fits, runnable
from tests.core.scheduling import job, node, option


def test_a_group_fits_a_node_of_its_kind_with_the_memory_and_the_gpus() -> None:
    assert fits(option(1, 8, memory_gb=80), node())
    assert not fits(option(1, 8, memory_gb=81), node())
    assert not fits(option(1, 9), node())
    assert not fits(option(1, kind="L40S"), node())
    assert not fits(option(1, 2), node(links=False))


def test_groups_may_stand_on_different_nodes_of_one_kind() -> None:
    two = [node("n0", 4), node("n1", 4)]
    assert runnable(Job("j", (option(1, 4, stages=2),)), two)
    assert not runnable(Job("j", (option(1, 4, stages=3),)), two)
    assert not runnable(Job("j", (option(1, 4, stages=2),)), [two[0], node("n1", 4, "L40S")])


def test_one_way_is_enough() -> None:
    assert runnable(Job("j", (option(1, 16), option(1, 1, kind="L40S"))), [node(kind="L40S")])


def test_seconds_are_the_load_and_the_work() -> None:
    one = option(100, load=20)
    assert one.seconds == 120


def test_the_quickest_way_and_the_one_of_fewest_gpu_seconds() -> None:
    wide, narrow = option(50, 4), option(120)
    both = Job("j", (wide, narrow))
    assert (both.quickest, both.gpu_seconds, job("j", 7).quickest.seconds) == (wide, 120, 7)
