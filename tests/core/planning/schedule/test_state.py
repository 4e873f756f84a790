import pytest

from core.planning.schedule.order import SchedulingPolicy
from core.planning.schedule.state import Arrived, Ended, State, after
from tests.core.scheduling import job, node, step

POLICY = SchedulingPolicy()


def running() -> State:
    return step(State((node(gpus=1),)), 0.0, [Arrived((job("a", 100),))], POLICY)[0]


def test_a_job_comes_once() -> None:
    with pytest.raises(ValueError, match="'a' is there already"):
        after(running(), 1.0, [Arrived((job("a", 1),))])


def test_only_what_runs_ends() -> None:
    with pytest.raises(KeyError, match="b"):
        after(running(), 1.0, [Ended("b")])


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="back"):
        after(State((node(),), now=5.0), 4.0, [])


def test_jobs_keep_the_order_in_which_they_came() -> None:
    state = after(running(), 1.0, [Arrived((job("z", 1),)), Arrived((job("b", 1), job("c", 1)))])
    orders = {key: waiting.order for key, waiting in state.waiting.items()}
    assert orders["z"] < orders["b"] < orders["c"]


def test_a_campaign_is_served_while_what_it_was_given_runs() -> None:
    assert running().served[""] == pytest.approx(100)
    assert after(running(), 40.0, [Ended("a")]).served == {}
