import pytest

from core.planning.schedule.jobs import ScheduledJob, State, after, fits, runnable
from core.planning.schedule.scheduler import SchedulingPolicy
from tests.core.planning.schedule.scheduling import job, node, option, step

POLICY = SchedulingPolicy()


def test_a_group_fits_a_node_of_its_kind_with_the_memory_and_the_gpus() -> None:
    assert fits(option(1, 8, memory_gb=80), node())
    assert not fits(option(1, 8, memory_gb=81), node())
    assert not fits(option(1, 9), node())
    assert not fits(option(1, kind="L40S"), node())
    assert not fits(option(1, 2), node(links=False))


def test_groups_may_stand_on_different_nodes_of_one_kind() -> None:
    two = [node("n0", 4), node("n1", 4)]
    assert runnable(ScheduledJob("j", (option(1, 4, stages=2),)), two)
    assert not runnable(ScheduledJob("j", (option(1, 4, stages=3),)), two)
    assert not runnable(ScheduledJob("j", (option(1, 4, stages=2),)), [two[0], node("n1", 4, "L40S")])


def test_one_way_is_enough() -> None:
    assert runnable(ScheduledJob("j", (option(1, 16), option(1, 1, kind="L40S"))), [node(kind="L40S")])


def test_seconds_are_the_load_and_the_work() -> None:
    one = option(100, load=20)
    assert one.seconds == 120


def test_the_quickest_way_and_the_one_of_fewest_gpu_seconds() -> None:
    wide, narrow = option(50, 4), option(120)
    both = ScheduledJob("j", (wide, narrow))
    assert (both.quickest, both.gpu_seconds, job("j", 7).quickest.seconds) == (wide, 120, 7)


def running() -> State:
    return step(State((node(gpus=1),)), 0.0, [job("a", 100)], POLICY)[0]


def test_a_job_comes_once() -> None:
    with pytest.raises(ValueError, match="'a' is there already"):
        after(running(), 1.0, [job("a", 1)])


def test_only_what_runs_ends() -> None:
    with pytest.raises(KeyError, match="b"):
        after(running(), 1.0, ended=["b"])


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="back"):
        after(State((node(),), now=5.0), 4.0, [])


def test_jobs_keep_the_order_in_which_they_came() -> None:
    state = after(running(), 1.0, [job("z", 1), job("b", 1), job("c", 1)])
    assert list(state.waiting) == ["z", "b", "c"]


def test_a_campaign_is_served_while_what_it_was_given_runs() -> None:
    assert running().served[""] == pytest.approx(100)
    assert after(running(), 40.0, ended=["a"]).served == {}
