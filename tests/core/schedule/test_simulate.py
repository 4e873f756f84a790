from functools import partial

import pytest

from core.schedule.jobs import Device, Job
from core.schedule.order import SchedulingPolicy
from core.schedule.simulate import simulate
from core.schedule.state import Back, Ended, Left, Preempted
from core.schedule.step import decide
from tests.core.scheduling import job, node, option

OURS = partial(decide, policy=SchedulingPolicy())


def test_makespan_utilisation_and_waiting() -> None:
    run = simulate([node(gpus=2)], [job("a", 30), job("b", 20), job("c", 10)], OURS)
    assert run.makespan == 30
    assert run.utilisation == 1
    assert run.waits == {"a": 0, "b": 0, "c": 20}


def test_no_jobs_take_no_time() -> None:
    run = simulate([node()], [], OURS)
    assert (run.makespan, run.utilisation, run.spans, run.left) == (0, 1, (), ())


def test_jobs_take_their_real_times_whatever_was_estimated() -> None:
    run = simulate([node(gpus=1)], [job("a", 100), job("b", 10)], OURS, factors={"a": 0.5, "b": 3})
    assert [(span.key, span.start, span.end) for span in run.spans] == [("a", 0, 50), ("b", 50, 80)]


def test_a_spot_node_that_leaves_costs_the_load_and_not_the_work() -> None:
    one = Job("a", (option(100, load=10),))
    devices = (Device("n0", 0),)
    run = simulate([node(gpus=1)], [one], OURS, happens=[(60.0, Left(devices)), (200.0, Back(devices))])
    assert [(span.start, span.end, span.preempted) for span in run.spans] == [(0, 60, True), (200, 260, False)]


def test_what_was_done_of_a_job_that_takes_twice_as_long_is_half() -> None:
    run = simulate([node(gpus=1)], [job("a", 100)], OURS, happens=[(100.0, Preempted("a"))], factors={"a": 2.0})
    assert run.spans[-1].end == pytest.approx(200)


def test_a_job_given_up_frees_its_gpu() -> None:
    run = simulate([node(gpus=1)], [job("a", 100), job("b", 50)], OURS, happens=[(10.0, Ended("a"))])
    assert [(span.key, span.end) for span in run.spans] == [("a", 10), ("b", 60)]


def test_jobs_whose_gpus_do_not_come_back_are_told() -> None:
    gone = Left((Device("n0", 0),))
    run = simulate([node(gpus=2)], [job("gang", 10, gpus=2), job("small", 10)], OURS, happens=[(5.0, gone)])
    assert run.left == ("gang",)
    assert [span.key for span in run.spans if not span.preempted] == ["small"]
