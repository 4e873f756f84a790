from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.planning.schedule.bound import lower_bound
from core.planning.schedule.jobs import Node, ScheduledJob, at_start
from core.planning.schedule.scheduler import SchedulingPolicy, decide, timetable
from tests.core.planning.schedule.scheduling import job, node, option


@pytest.mark.parametrize(
    ("nodes", "jobs", "seconds", "reason"),
    [
        ([node(gpus=4)], [job("long", 90), job("a", 10)], 90, "longest job"),
        ([node(gpus=2)], [job(str(n), 10) for n in range(6)], 30, "area"),
        ([node(gpus=2)], [job(str(n), 10) for n in range(3)], 20, "packing"),  # two of three share a GPU
        ([node("a"), node("b")], [job(str(n), 10, gpus=6) for n in range(3)], 20, "packing"),  # one of 6 to a node
        ([node("a"), node("b")], [job(str(n), 10, gpus=3) for n in range(5)], 20, "packing"),  # two of 3 to a node
        ([node(gpus=8)], [job("long", 50), job("whole", 20, gpus=8)], 70, "packing"),
        ([node("a"), node("b")], [ScheduledJob(str(n), (option(10, 4, stages=3),)) for n in range(2)], 20, "packing"),
    ],
)
def test_known_bounds(nodes: list[Node], jobs: list[ScheduledJob], seconds: float, reason: str) -> None:
    bound = lower_bound(nodes, jobs)
    assert bound.seconds == pytest.approx(seconds, rel=0.005)
    assert bound.reason == reason
    assert bound.seconds <= seconds * (1 + 1e-9)


def test_mixed_kinds_share_the_work_as_their_speeds_allow() -> None:
    # One job alone on the slow GPU takes 20; twelve jobs: 8 on the fast one, 4 on the slow one, 80 both.
    nodes = [node("fast", 1), node("slow", 1, "L40S", 48)]
    jobs = [ScheduledJob(str(n), (option(10), option(20, kind="L40S"))) for n in range(12)]
    assert lower_bound(nodes, jobs).seconds == pytest.approx(80)


def test_a_way_that_takes_too_long_does_not_lower_the_bound() -> None:
    nodes = [node("fast", 1), node("slow", 1, "L40S", 48)]
    jobs = [ScheduledJob(str(n), (option(10), option(100, kind="L40S"))) for n in range(4)]
    assert lower_bound(nodes, jobs).seconds == pytest.approx(40, rel=0.005)


def test_a_job_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="'wide' fits nowhere"):
        lower_bound([node(gpus=4)], [job("wide", 1, gpus=8)])


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 4)), min_size=1, max_size=5))
@settings(max_examples=60)
def test_the_best_of_all_orders_is_not_below_the_bound_and_often_on_it(drawn: list[tuple[int, int]]) -> None:
    nodes = [node(gpus=4)]
    jobs = [job(str(number), float(seconds), gpus) for number, (seconds, gpus) in enumerate(drawn)]
    bound = lower_bound(nodes, jobs).seconds
    best = min(
        timetable(
            at_start(nodes, [ScheduledJob(j.key, j.options, priority=-rank) for rank, j in enumerate(order)]),
            SchedulingPolicy(),
        ).ends
        for order in permutations(jobs)
    )
    assert bound <= best * (1 + 1e-9)
    assert best <= 2 * bound
    assert decide(at_start(nodes, jobs), SchedulingPolicy())
