from functools import partial

import pytest

from core.schedule.jobs import Job
from core.schedule.order import SchedulingPolicy
from core.schedule.simulate import simulate
from core.schedule.state import Arrived, State
from core.schedule.step import decide, step
from tests.core.scheduling import job, node, option

SHARING = SchedulingPolicy(share_gpus=True)


def light(key: str, busy: float = 0.3, memory_gb: float = 20, seconds: float = 100, **more: float) -> Job:
    return Job(key, (option(seconds, busy=busy, memory_gb=memory_gb),), **more)  # type: ignore[arg-type]


def makespan(jobs: list[Job], policy: SchedulingPolicy) -> float:
    return simulate([node(gpus=1)], jobs, partial(decide, policy=policy)).makespan


def test_two_light_models_share_a_gpu_only_if_allowed() -> None:
    jobs = [light("a"), light("b")]
    assert makespan(jobs, SchedulingPolicy()) == 200
    assert makespan(jobs, SHARING) == 100


def test_two_that_keep_the_gpu_busy_do_not() -> None:
    assert makespan([light("a", busy=1.0), light("b", busy=1.0)], SHARING) == 200


def test_two_that_do_not_fit_its_memory_do_not() -> None:
    assert makespan([light("a", memory_gb=40), light("b", memory_gb=40)], SHARING) == 200


def test_no_third_comes() -> None:
    run = simulate([node(gpus=1)], [light(name, busy=0.1) for name in "abc"], partial(decide, policy=SHARING))
    assert sorted(span.start for span in run.spans) == [0, 0, 100]


def test_both_go_slower_where_the_gpu_is_too_small_for_the_two_and_faster_when_one_is_gone() -> None:
    # 0.8 + 0.8 of a GPU: each goes at 0.625 of its speed; the gain asked for, 1.15, is met.
    jobs = [light("a", busy=0.8), light("b", busy=0.8, seconds=50)]
    run = simulate([node(gpus=1)], jobs, partial(decide, policy=SHARING))
    ends = {span.key: span.end for span in run.spans}
    assert ends["b"] == pytest.approx(80)
    assert ends["a"] == pytest.approx(80 + 50)


def test_a_free_gpu_is_taken_first() -> None:
    run = simulate([node(gpus=2)], [light("a"), light("b")], partial(decide, policy=SHARING))
    assert len({span.devices for span in run.spans}) == 2


def test_a_job_is_not_slowed_down_past_its_deadline() -> None:
    state, _ = step(State((node(gpus=1),)), 0.0, [Arrived((light("due", busy=0.8, deadline=110.0),))], SHARING)
    assert step(state, 0.0, [Arrived((light("b", busy=0.8),))], SHARING)[1] == ()
    assert len(step(state, 0.0, [Arrived((light("b", busy=0.1),))], SHARING)[1]) == 1


def test_a_gang_that_waits_for_the_gpu_is_not_delayed() -> None:
    state, _ = step(State((node(gpus=2),)), 0.0, [Arrived((light("a"), job("half", 100)))], SHARING)
    gang = Arrived((job("gang", 500, gpus=2, priority=1), light("fits", seconds=100), light("too-long", seconds=101)))
    assert [start.key for start in step(state, 0.0, [gang], SHARING)[1]] == ["fits"]
