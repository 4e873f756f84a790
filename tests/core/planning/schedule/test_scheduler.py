from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.planning.schedule.bound import lower_bound
from core.planning.schedule.jobs import Device, Node, ScheduledJob, State, at_start, runnable
from core.planning.schedule.scheduler import SchedulingPolicy, choose, decide, timetable
from core.planning.schedule.simulate import policies, simulate
from tests.core.planning.schedule.scheduling import campaigns, check_devices, job, node, option, step

POLICY = SchedulingPolicy()


def test_nobody_waits_nobody_starts() -> None:
    assert decide(State((node(),)), POLICY) == ()


def started(nodes: list, jobs: list[ScheduledJob], policy: SchedulingPolicy = POLICY) -> list[str]:
    return [start.key for start in decide(at_start(nodes, jobs), policy)]


def test_the_longest_job_starts_first() -> None:
    assert started([node(gpus=1)], [job("short", 10), job("long", 100)]) == ["long"]


def test_a_small_job_fills_the_gap_before_a_gang_and_a_long_one_does_not() -> None:
    nodes = [node(gpus=2)]
    state, _ = step(State(tuple(nodes)), 0.0, [job("first", 50)], POLICY)
    waiting = (job("gang", 60, gpus=2), job("fits", 50), job("too-long", 51))
    _, starts = step(state, 0.0, waiting, POLICY)
    assert [start.key for start in starts] == ["fits"]


def test_a_job_that_ends_early_lets_the_next_start_and_a_late_one_keeps_its_gpu() -> None:
    state, _ = step(State((node(gpus=1),)), 0.0, [job("a", 100), job("b", 50)], POLICY)
    early, starts = step(state, 10.0, [], POLICY, ended=["a"])
    assert [start.key for start in starts] == ["b"]
    assert early.running["b"].ends == 60
    assert step(state, 500.0, [], POLICY)[1] == ()


def test_a_job_goes_to_the_gpu_on_which_it_ends_first() -> None:
    nodes = [node("fast", 1, "H100"), node("slow", 1, "L40S", 48)]
    both = ScheduledJob("both", (option(100, kind="H100"), option(300, kind="L40S")))
    state, starts = step(State(tuple(nodes)), 0.0, [job("first", 120), both], POLICY)
    assert [(start.key, start.devices) for start in starts] == [("first", (Device("fast", 0),))]
    assert timetable(state, POLICY).slots["both"].start == 120  # ends at 220 there, at 300 on the slow one
    longer = [job("first", 410), both]
    _, starts = step(State(tuple(nodes)), 0.0, longer, POLICY)
    assert ("both", (Device("slow", 0),)) in [(start.key, start.devices) for start in starts]


def test_stages_may_cross_nodes_and_groups_may_not() -> None:
    nodes = [node("n0", 4), node("n1", 4)]
    assert started(nodes, [ScheduledJob("tp8", (option(1, 8),))]) == []
    (start,) = decide(at_start(nodes, [ScheduledJob("pp2", (option(1, 4, stages=2),))]), POLICY)
    assert sorted({device.node for device in start.devices}) == ["n0", "n1"]
    (start,) = decide(at_start(nodes, [ScheduledJob("within", (option(1, 2, stages=2),))]), POLICY)
    assert {device.node for device in start.devices} == {"n0"}


def test_a_gang_does_not_run_on_mig_slices() -> None:
    sliced = [node(links=False)]
    assert set(timetable(at_start(sliced, [job("gang", 1, gpus=2), job("one", 1)]), POLICY).slots) == {"one"}
    assert started(sliced, [job("gang", 1, gpus=2), job("one", 1)]) == ["one"]


def test_small_jobs_are_packed_so_that_a_gang_finds_a_whole_node() -> None:
    nodes = [node("n0", 4), node("n1", 4)]
    starts = decide(at_start(nodes, [*(job(f"s{n}", 100 + n) for n in range(4)), job("gang", 50, gpus=4)]), POLICY)
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
    state = at_start([node(gpus=4)], jobs)
    chosen = choose(state, SchedulingPolicy(gang_bias=0.0))
    assert timetable(state, chosen).ends <= timetable(state, SchedulingPolicy(gang_bias=0.0)).ends
    assert choose(state, chosen) == chosen


def test_the_plan_of_other_jobs_stays_when_the_last_in_order_changes() -> None:
    jobs = [job(f"j{number}", 100 * (20 - number), gpus=1 + number % 4) for number in range(20)]
    plan = timetable(at_start([node(gpus=4)], jobs), POLICY).slots
    changed = [*jobs[:-1], job("j19", 50, gpus=1)]
    other = timetable(at_start([node(gpus=4)], changed), POLICY).slots
    assert {key: slot for key, slot in plan.items() if key != "j19"} == {
        key: slot for key, slot in other.items() if key != "j19"
    }


Campaign = tuple[tuple[Node, ...], list[ScheduledJob]]


@given(campaigns(), st.randoms(use_true_random=False))
@settings(max_examples=80)
def test_no_gpu_twice_gangs_whole_and_no_job_lost_or_run_twice(campaign: Campaign, rng: object) -> None:
    nodes, jobs = campaign
    factors = {each.key: rng.uniform(0.3, 3) for each in jobs}  # type: ignore[attr-defined]
    run = simulate(nodes, jobs, partial(decide, policy=POLICY), factors=factors)
    check_devices(nodes, run)
    assert Counter(span.key for span in run.spans) == Counter(each.key for each in jobs)


@given(campaigns(), st.randoms(use_true_random=False))
@settings(max_examples=80)
def test_jobs_that_come_late_are_run_once_on_gpus_of_their_own(campaign: Campaign, rng: object) -> None:
    nodes, jobs = campaign
    late = rng.randint(0, len(jobs))  # type: ignore[attr-defined]
    later = [(float(rng.randint(0, 100)), each) for each in jobs[:late]]  # type: ignore[attr-defined]
    run = simulate(nodes, jobs[late:], partial(decide, policy=POLICY), later=later)
    check_devices(nodes, run)
    assert Counter(span.key for span in run.spans) == Counter(each.key for each in jobs)


@given(campaigns(), st.sampled_from([5.0, 50.0]), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_every_job_waits_no_longer_than_its_patience_and_those_before_it(
    campaign: Campaign, patience: float, rng: object
) -> None:
    nodes, jobs = campaign
    came = {each.key: float(rng.randint(0, 200)) for each in jobs}  # type: ignore[attr-defined]
    later = [(came[each.key], each) for each in jobs]
    run = simulate(nodes, [], partial(decide, policy=SchedulingPolicy(patience_seconds=patience)), later=later)
    longest = {each.key: max(way.seconds for way in each.options) for each in jobs}
    for each in jobs:
        before = sum(longest[key] for key, time in came.items() if time <= came[each.key])
        assert run.waits[each.key] <= patience + max(longest.values()) + before


@given(campaigns())
@settings(max_examples=40)
def test_what_was_planned_is_what_happens_if_times_hold(campaign: Campaign) -> None:
    nodes, jobs = campaign
    jobs = [replace(each, campaign="one") for each in jobs]
    plan = timetable(at_start(nodes, jobs), POLICY)
    run = simulate(nodes, jobs, partial(decide, policy=POLICY))
    assert {span.key: span.start for span in run.spans} == {key: slot.start for key, slot in plan.slots.items()}


@given(campaigns(), campaigns())
@settings(max_examples=40)
def test_backfill_delays_nobody_before_it(campaign: Campaign, more: Campaign) -> None:
    nodes, jobs = campaign
    behind = [replace(each, key=f"behind-{each.key}", priority=-1) for each in more[1] if runnable(each, nodes)]
    alone = timetable(at_start(nodes, jobs), POLICY).slots
    both = timetable(at_start(nodes, [*jobs, *behind]), POLICY).slots
    assert {key: both[key] for key in alone} == alone


@given(st.integers(1, 8), st.integers(1, 20), st.integers(1, 3))
def test_equal_jobs_start_in_the_order_they_came(gpus: int, count: int, width: int) -> None:
    names = [f"{chr(97 + (number * 7) % 26)}{number}" for number in range(count)]
    jobs = [ScheduledJob(name, (option(10, min(width, gpus)),)) for name in names]
    run = simulate([node(gpus=gpus)], jobs, partial(decide, policy=POLICY))
    starts = {span.key: span.start for span in run.spans}
    assert [starts[name] for name in names] == sorted(starts.values())
    first = {span.key: span.devices for span in run.spans if span.start == 0}
    assert sorted(first, key=lambda key: first[key]) == names[: len(first)]


@given(campaigns())
@settings(max_examples=40)
def test_the_same_input_gives_the_same_schedule(campaign: Campaign) -> None:
    nodes, jobs = campaign
    policy = partial(decide, policy=POLICY)
    assert simulate(nodes, jobs, policy) == simulate(nodes, jobs, policy)


@given(campaigns())
@settings(max_examples=80)
def test_no_policy_beats_the_lower_bound(campaign: Campaign) -> None:
    nodes, jobs = campaign
    bound = lower_bound(nodes, jobs).seconds
    for name, policy in policies(nodes, jobs, POLICY).items():
        assert simulate(nodes, jobs, policy).makespan >= bound * (1 - 1e-9), name
