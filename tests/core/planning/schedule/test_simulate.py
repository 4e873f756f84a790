from functools import partial

from core.planning.schedule.order import SchedulingPolicy
from core.planning.schedule.simulate import simulate
from core.planning.schedule.step import decide
from tests.core.scheduling import job, node

OURS = partial(decide, policy=SchedulingPolicy())


def test_makespan_utilisation_and_waiting() -> None:
    run = simulate([node(gpus=2)], [job("a", 30), job("b", 20), job("c", 10)], OURS)
    assert run.makespan == 30
    assert run.utilisation == 1
    assert run.waits == {"a": 0, "b": 0, "c": 20}


def test_no_jobs_take_no_time() -> None:
    run = simulate([node()], [], OURS)
    assert (run.makespan, run.utilisation, run.spans) == (0, 1, ())


def test_jobs_take_their_real_times_whatever_was_estimated() -> None:
    run = simulate([node(gpus=1)], [job("a", 100), job("b", 10)], OURS, factors={"a": 0.5, "b": 3})
    assert [(span.key, span.start, span.end) for span in run.spans] == [("a", 0, 50), ("b", 50, 80)]


def test_a_job_that_comes_later_waits_from_then() -> None:
    run = simulate([node(gpus=1)], [job("a", 100)], OURS, later=[(40.0, job("b", 50))])
    assert run.waits == {"a": 0, "b": 60}
    assert run.makespan == 150
