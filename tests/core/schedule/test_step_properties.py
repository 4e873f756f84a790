"""What holds for every fleet, every campaign and whatever happens to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from core.schedule.bound import lower_bound
from core.schedule.jobs import Device, Job, Node, runnable
from core.schedule.order import SchedulingPolicy
from core.schedule.rivals import policies
from core.schedule.simulate import simulate
from core.schedule.state import Arrived, Back, Event, Left, Preempted
from core.schedule.step import decide, timetable
from tests.core.scheduling import campaigns, check_devices, node, option, state_of

POLICY = SchedulingPolicy()
SHARING = SchedulingPolicy(share_gpus=True)
Campaign = tuple[tuple[Node, ...], list[Job]]


@given(campaigns(), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_no_gpu_twice_gangs_whole_and_no_job_lost_or_run_twice(campaign: Campaign, share: bool, rng: object) -> None:
    nodes, jobs = campaign
    factors = {each.key: rng.uniform(0.3, 3) for each in jobs}  # type: ignore[attr-defined]
    run = simulate(nodes, jobs, partial(decide, policy=SHARING if share else POLICY), factors=factors)
    check_devices(nodes, run, tenants=2 if share else 1)
    assert Counter(span.key for span in run.spans) == Counter(each.key for each in jobs)
    assert run.left == ()


@st.composite
def troubled(draw: st.DrawFn) -> tuple[tuple[Node, ...], list[Job], list[tuple[float, Event]]]:
    """A campaign, late arrivals, devices that leave and may come back, and jobs that are stopped."""
    nodes, jobs = draw(campaigns())
    late = draw(st.integers(0, len(jobs)))
    events: list[tuple[float, Event]] = [
        (float(draw(st.integers(0, 100))), Arrived((each,))) for each in jobs[len(jobs) - late :]
    ]
    for _ in range(draw(st.integers(0, 3))):
        machine = draw(st.sampled_from(nodes))
        first = draw(st.integers(0, machine.gpus - 1))
        devices = tuple(Device(machine.name, gpu) for gpu in range(first, machine.gpus))
        gone = draw(st.integers(0, 100))
        events.append((float(gone), Left(devices)))
        if draw(st.booleans()):
            events.append((float(gone + draw(st.integers(1, 100))), Back(devices)))
    for each in draw(st.lists(st.sampled_from(jobs), max_size=3)) if jobs else []:
        events.append((float(draw(st.integers(1, 100))), Preempted(each.key)))
    return nodes, jobs[: len(jobs) - late], events


@given(troubled(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_devices_that_leave_and_jobs_that_are_stopped_lose_no_job(
    case: tuple[tuple[Node, ...], list[Job], list[tuple[float, Event]]], share: bool
) -> None:
    nodes, jobs, events = case
    run = simulate(nodes, jobs, partial(decide, policy=SHARING if share else POLICY), happens=events)
    check_devices(nodes, run, tenants=2 if share else 1)
    everything = jobs + [each for _, event in events if isinstance(event, Arrived) for each in event.jobs]
    done = Counter(span.key for span in run.spans if not span.preempted)
    assert done == Counter(each.key for each in everything if each.key not in run.left)
    # A gang is released whole, at the moment one of its devices leaves; nothing runs on what is gone.
    spells: dict[Device, list[tuple[float, float]]] = {}
    for time, event in sorted(events, key=lambda each: each[0]):
        for device in event.devices if isinstance(event, Left | Back) else ():
            if isinstance(event, Left):
                spells.setdefault(device, []).append((time, float("inf")))
            else:
                spells[device] = [(begun, min(ended, time)) for begun, ended in spells.get(device, [])]
    for span in run.spans:
        for device in span.devices:
            assert all(span.end <= begun or span.start >= ended for begun, ended in spells.get(device, []))
    # Only what no way of running it is left for stays in the queue.
    gone = Counter(device.node for device, times in spells.items() if any(end == float("inf") for _, end in times))
    whole = [replace(each, gpus=each.gpus - gone[each.name]) for each in nodes if each.gpus > gone[each.name]]
    assert not any(runnable(each, whole) for each in everything if each.key in run.left)


@given(campaigns(), st.sampled_from([5.0, 50.0]), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_every_job_waits_no_longer_than_its_patience_and_those_before_it(
    campaign: Campaign, patience: float, rng: object
) -> None:
    nodes, jobs = campaign
    arrivals = [(float(rng.randint(0, 200)), Arrived((each,))) for each in jobs]  # type: ignore[attr-defined]
    run = simulate(nodes, [], partial(decide, policy=SchedulingPolicy(patience_seconds=patience)), happens=arrivals)
    longest = {each.key: max(way.seconds() for way in each.options) for each in jobs}
    for each in jobs:
        came = run.arrived[each.key]
        before = sum(longest[key] for key, time in run.arrived.items() if time <= came)
        assert run.waits[each.key] <= patience + max(longest.values()) + before


@given(campaigns())
@settings(max_examples=40, deadline=None)
def test_what_was_planned_is_what_happens_if_times_hold(campaign: Campaign) -> None:
    nodes, jobs = campaign
    jobs = [replace(each, campaign="one", deadline=None) for each in jobs]
    plan = timetable(state_of(nodes, jobs), POLICY)
    run = simulate(nodes, jobs, partial(decide, policy=POLICY))
    assert {span.key: span.start for span in run.spans} == {key: slot.start for key, slot in plan.slots.items()}


@given(campaigns(), campaigns())
@settings(max_examples=40, deadline=None)
def test_backfill_delays_nobody_before_it(campaign: Campaign, more: Campaign) -> None:
    nodes, jobs = campaign
    behind = [
        replace(each, key=f"behind-{each.key}", priority=-1, deadline=None) for each in more[1] if runnable(each, nodes)
    ]
    alone = timetable(state_of(nodes, [replace(each, deadline=None) for each in jobs]), POLICY).slots
    both = timetable(state_of(nodes, [*(replace(each, deadline=None) for each in jobs), *behind]), POLICY).slots
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


@given(campaigns(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_same_input_gives_the_same_schedule(campaign: Campaign, share: bool) -> None:
    nodes, jobs = campaign
    policy = partial(decide, policy=SHARING if share else POLICY)
    assert simulate(nodes, jobs, policy) == simulate(nodes, jobs, policy)


@given(campaigns(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_no_policy_beats_the_lower_bound(campaign: Campaign, share: bool) -> None:
    nodes, jobs = campaign
    bound = lower_bound(nodes, jobs, shared=share).seconds
    for name, policy in policies(nodes, jobs, SHARING if share else POLICY).items():
        assert simulate(nodes, jobs, policy).makespan >= bound * (1 - 1e-9), name
