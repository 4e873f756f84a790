from functools import partial

import pytest

from core.planning.schedule.jobs import Device, Job
from core.planning.schedule.order import SchedulingPolicy
from core.planning.schedule.simulate import simulate
from core.planning.schedule.state import Arrived, Ended, State
from core.planning.schedule.step import choose, decide, timetable
from tests.core.scheduling import job, node, option, state_of, step

POLICY = SchedulingPolicy()


def test_nobody_waits_nobody_starts() -> None:
    assert decide(State((node(),)), POLICY) == ()


def started(nodes: list, jobs: list[Job], policy: SchedulingPolicy = POLICY) -> list[str]:
    return [start.key for start in decide(state_of(nodes, jobs), policy)]


def test_the_longest_job_starts_first() -> None:
    assert started([node(gpus=1)], [job("short", 10), job("long", 100)]) == ["long"]


def test_a_small_job_fills_the_gap_before_a_gang_and_a_long_one_does_not() -> None:
    nodes = [node(gpus=2)]
    state, _ = step(State(tuple(nodes)), 0.0, [Arrived((job("first", 50),))], POLICY)
    waiting = (job("gang", 60, gpus=2), job("fits", 50), job("too-long", 51))
    _, starts = step(state, 0.0, [Arrived(waiting)], POLICY)
    assert [start.key for start in starts] == ["fits"]


def test_a_job_that_ends_early_lets_the_next_start_and_a_late_one_keeps_its_gpu() -> None:
    state, _ = step(State((node(gpus=1),)), 0.0, [Arrived((job("a", 100), job("b", 50)))], POLICY)
    early, starts = step(state, 10.0, [Ended("a")], POLICY)
    assert [start.key for start in starts] == ["b"]
    assert early.running["b"].ends == 60
    assert step(state, 500.0, [], POLICY)[1] == ()


def test_a_job_goes_to_the_gpu_on_which_it_ends_first() -> None:
    nodes = [node("fast", 1, "H100"), node("slow", 1, "L40S", 48)]
    both = Job("both", (option(100, kind="H100"), option(300, kind="L40S")))
    state, starts = step(State(tuple(nodes)), 0.0, [Arrived((job("first", 120), both))], POLICY)
    assert [(start.key, start.devices) for start in starts] == [("first", (Device("fast", 0),))]
    assert timetable(state, POLICY).slots["both"].start == 120  # ends at 220 there, at 300 on the slow one
    longer = Arrived((job("first", 410), both))
    _, starts = step(State(tuple(nodes)), 0.0, [longer], POLICY)
    assert ("both", (Device("slow", 0),)) in [(start.key, start.devices) for start in starts]


def test_stages_may_cross_nodes_and_groups_may_not() -> None:
    nodes = [node("n0", 4), node("n1", 4)]
    assert started(nodes, [Job("tp8", (option(1, 8),))]) == []
    (start,) = decide(state_of(nodes, [Job("pp2", (option(1, 4, stages=2),))]), POLICY)
    assert sorted({device.node for device in start.devices}) == ["n0", "n1"]
    (start,) = decide(state_of(nodes, [Job("within", (option(1, 2, stages=2),))]), POLICY)
    assert {device.node for device in start.devices} == {"n0"}


def test_a_gang_does_not_run_on_mig_slices() -> None:
    sliced = [node(links=False)]
    assert timetable(state_of(sliced, [job("gang", 1, gpus=2), job("one", 1)]), POLICY).stuck == ("gang",)
    assert started(sliced, [job("gang", 1, gpus=2), job("one", 1)]) == ["one"]


def test_small_jobs_are_packed_so_that_a_gang_finds_a_whole_node() -> None:
    nodes = [node("n0", 4), node("n1", 4)]
    starts = decide(state_of(nodes, [*(job(f"s{n}", 100 + n) for n in range(4)), job("gang", 50, gpus=4)]), POLICY)
    assert len(starts) == 5


def test_priority_goes_before_length() -> None:
    assert started([node(gpus=1)], [job("long", 100), job("dear", 10, priority=1)]) == ["dear"]


def test_an_endless_stream_of_better_jobs_starves_nobody() -> None:
    stream = [(10.0 * number, job(f"s{number}", 10, priority=1)) for number in range(60)]
    small = [(1.0, job("small", 1))]
    for patience, least, most in ((100.0, 100, 120), (1e9, 590, 610)):
        policy = partial(decide, policy=SchedulingPolicy(patience_seconds=patience))
        wait = simulate([node(gpus=1)], [], policy, later=[*stream, *small]).waits["small"]
        assert least <= wait <= most


def test_an_endless_stream_of_small_jobs_does_not_starve_a_gang() -> None:
    stream = [(5.0 * number, job(f"s{number}", 10)) for number in range(100)]
    gang = (7.0, job("gang", 40, gpus=2))
    run = simulate([node(gpus=2)], [], partial(decide, policy=POLICY), later=[*stream, gang])
    assert run.waits["gang"] <= 10


def test_campaigns_get_as_many_gpu_seconds() -> None:
    jobs = [job(f"{name}{number}", 10, campaign=name) for name in ("a", "b") for number in range(100)]
    run = simulate([node(gpus=4)], jobs, partial(decide, policy=POLICY))
    first = [span for span in run.spans if span.start < 200]
    assert sum(span.key.startswith("a") for span in first) / len(first) == pytest.approx(0.5, abs=0.03)


def test_a_campaign_that_comes_late_does_not_push_the_first_aside() -> None:
    # One job is longer, so that the two GPUs come free one after the other.
    first = [job(f"a{number:02d}", 15 if number == 0 else 10, campaign="a") for number in range(60)]
    late = [(200.0, job(f"b{number:02d}", 10, campaign="b")) for number in range(40)]
    run = simulate([node(gpus=2)], first, partial(decide, policy=POLICY), later=late)
    after = [span.key[0] for span in run.spans if 210 <= span.start < 410]
    assert after.count("a") == pytest.approx(after.count("b"), abs=2)


def test_another_order_is_chosen_only_where_it_is_clearly_better() -> None:
    # The gang alone ends last if small jobs of its length go first; it goes first with any bias.
    jobs = [*(job(f"s{number}", 100) for number in range(4)), job("gang", 95, gpus=4), job("tail", 30)]
    state = state_of([node(gpus=4)], jobs)
    chosen = choose(state, SchedulingPolicy(gang_bias=0.0))
    assert timetable(state, chosen).ends <= timetable(state, SchedulingPolicy(gang_bias=0.0)).ends
    assert choose(state, chosen) == chosen


def test_the_plan_of_other_jobs_stays_when_the_last_in_order_changes() -> None:
    jobs = [job(f"j{number}", 100 * (20 - number), gpus=1 + number % 4) for number in range(20)]
    plan = timetable(state_of([node(gpus=4)], jobs), POLICY).slots
    changed = [*jobs[:-1], job("j19", 50, gpus=1)]
    other = timetable(state_of([node(gpus=4)], changed), POLICY).slots
    assert {key: slot for key, slot in plan.items() if key != "j19"} == {
        key: slot for key, slot in other.items() if key != "j19"
    }
