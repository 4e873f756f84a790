"""What holds for every fleet, every campaign and whatever happens to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from core.planning.schedule.bound import lower_bound
from core.planning.schedule.jobs import Job, Node, runnable
from core.planning.schedule.order import SchedulingPolicy
from core.planning.schedule.rivals import policies
from core.planning.schedule.simulate import simulate
from core.planning.schedule.step import decide, timetable
from tests.core.scheduling import campaigns, check_devices, node, option, state_of

POLICY = SchedulingPolicy()
Campaign = tuple[tuple[Node, ...], list[Job]]


@given(campaigns(), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_no_gpu_twice_gangs_whole_and_no_job_lost_or_run_twice(campaign: Campaign, rng: object) -> None:
    nodes, jobs = campaign
    factors = {each.key: rng.uniform(0.3, 3) for each in jobs}  # type: ignore[attr-defined]
    run = simulate(nodes, jobs, partial(decide, policy=POLICY), factors=factors)
    check_devices(nodes, run)
    assert Counter(span.key for span in run.spans) == Counter(each.key for each in jobs)


@given(campaigns(), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_jobs_that_come_late_are_run_once_on_gpus_of_their_own(campaign: Campaign, rng: object) -> None:
    nodes, jobs = campaign
    late = rng.randint(0, len(jobs))  # type: ignore[attr-defined]
    later = [(float(rng.randint(0, 100)), each) for each in jobs[:late]]  # type: ignore[attr-defined]
    run = simulate(nodes, jobs[late:], partial(decide, policy=POLICY), later=later)
    check_devices(nodes, run)
    assert Counter(span.key for span in run.spans) == Counter(each.key for each in jobs)


@given(campaigns(), st.sampled_from([5.0, 50.0]), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
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
@settings(max_examples=40, deadline=None)
def test_what_was_planned_is_what_happens_if_times_hold(campaign: Campaign) -> None:
    nodes, jobs = campaign
    jobs = [replace(each, campaign="one") for each in jobs]
    plan = timetable(state_of(nodes, jobs), POLICY)
    run = simulate(nodes, jobs, partial(decide, policy=POLICY))
    assert {span.key: span.start for span in run.spans} == {key: slot.start for key, slot in plan.slots.items()}


@given(campaigns(), campaigns())
@settings(max_examples=40, deadline=None)
def test_backfill_delays_nobody_before_it(campaign: Campaign, more: Campaign) -> None:
    nodes, jobs = campaign
    behind = [replace(each, key=f"behind-{each.key}", priority=-1) for each in more[1] if runnable(each, nodes)]
    alone = timetable(state_of(nodes, jobs), POLICY).slots
    both = timetable(state_of(nodes, [*jobs, *behind]), POLICY).slots
    assert {key: both[key] for key in alone} == alone


@given(st.integers(1, 8), st.integers(1, 20), st.integers(1, 3))
def test_equal_jobs_start_in_the_order_they_came(gpus: int, count: int, width: int) -> None:
    names = [f"{chr(97 + (number * 7) % 26)}{number}" for number in range(count)]
    jobs = [Job(name, (option(10, min(width, gpus)),)) for name in names]
    run = simulate([node(gpus=gpus)], jobs, partial(decide, policy=POLICY))
    starts = {span.key: span.start for span in run.spans}
    assert [starts[name] for name in names] == sorted(starts.values())
    first = {span.key: span.devices for span in run.spans if span.start == 0}
    assert sorted(first, key=lambda key: first[key]) == names[: len(first)]


@given(campaigns())
@settings(max_examples=40, deadline=None)
def test_the_same_input_gives_the_same_schedule(campaign: Campaign) -> None:
    nodes, jobs = campaign
    policy = partial(decide, policy=POLICY)
    assert simulate(nodes, jobs, policy) == simulate(nodes, jobs, policy)


@given(campaigns())
@settings(max_examples=80, deadline=None)
def test_no_policy_beats_the_lower_bound(campaign: Campaign) -> None:
    nodes, jobs = campaign
    bound = lower_bound(nodes, jobs).seconds
    for name, policy in policies(nodes, jobs, POLICY).items():
        assert simulate(nodes, jobs, policy).makespan >= bound * (1 - 1e-9), name
