import pytest

from core.schedule.jobs import Device
from core.schedule.order import SchedulingPolicy
from core.schedule.state import LEAST_SHARE, Arrived, Back, Ended, Expected, Left, Preempted, State, after
from core.schedule.step import step
from tests.core.scheduling import job, node, option, state_of

POLICY = SchedulingPolicy()


def running(seconds: float = 100, load: float = 0.0) -> State:
    one = job("a", seconds)
    one = type(one)("a", (option(seconds, load=load),))
    return step(State((node(gpus=1),)), 0.0, [Arrived((one,))], POLICY)[0]


def test_a_preempted_job_keeps_its_work_and_loads_again() -> None:
    state = after(running(100, load=20), 70.0, [Preempted("a")])
    assert state.waiting["a"].share == pytest.approx(0.5)
    assert state.waiting["a"].quickest[1] == pytest.approx(20 + 50)
    assert not state.running


def test_a_job_stopped_while_it_loads_has_all_its_work_left() -> None:
    assert after(running(100, load=20), 10.0, [Preempted("a")]).waiting["a"].share == 1


def test_what_the_shards_hold_counts_before_the_estimate() -> None:
    assert after(running(), 10.0, [Preempted("a", done=0.75)]).waiting["a"].share == pytest.approx(0.25)


def test_a_job_that_was_all_but_done_has_something_left() -> None:
    assert after(running(), 500.0, [Preempted("a")]).waiting["a"].share == LEAST_SHARE


def test_a_job_that_was_stopped_keeps_its_place() -> None:
    state, _ = step(running(), 1.0, [Arrived((job("b", 100),))], POLICY)
    state = after(state, 2.0, [Preempted("a", done=0.0)])
    assert (state.waiting["a"].since, state.waiting["a"].order) < (state.waiting["b"].since, state.waiting["b"].order)


def test_work_is_never_less_done_than_before() -> None:
    state = after(running(), 60.0, [Preempted("a")])
    state, _ = step(state, 60.0, [], POLICY)
    assert after(state, 61.0, [Preempted("a", done=0.0)]).waiting["a"].share == pytest.approx(0.4)


def test_events_about_jobs_that_are_gone_change_nothing() -> None:
    state = running()
    assert after(state, 0.0, [Ended("b"), Preempted("b"), Expected("b", 5)]) == state


def test_a_job_comes_once() -> None:
    with pytest.raises(ValueError, match="'a' is there already"):
        after(running(), 1.0, [Arrived((job("a", 1),))])


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="back"):
        after(State((node(),), now=5.0), 4.0, [])


def test_devices_leave_and_come_back() -> None:
    device = Device("n0", 0)
    gone = after(state_of([node(gpus=1)], [job("a", 1)]), 1.0, [Left((device,))])
    assert step(gone, 2.0, [], POLICY)[1] == ()
    assert [start.key for start in step(gone, 3.0, [Back((device,))], POLICY)[1]] == ["a"]


def test_a_campaign_is_charged_what_it_used() -> None:
    state = after(running(100), 40.0, [Ended("a")])
    assert state.served[""] == pytest.approx(40)
