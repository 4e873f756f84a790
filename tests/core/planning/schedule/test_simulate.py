from functools import partial

from core.planning.schedule.jobs import at_start
from core.planning.schedule.scheduler import SchedulingPolicy, decide
from core.planning.schedule.simulate import apart, first_in_first_out, largest_first, policies, simulate
from tests.core.planning.schedule.scheduling import job, node, step

POLICY = SchedulingPolicy()
OURS = partial(decide, policy=POLICY)


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


def test_first_in_first_out_lets_nobody_pass() -> None:
    jobs = [job("a", 10), job("gang", 10, gpus=2), job("b", 10)]
    assert [start.key for start in first_in_first_out(at_start([node(gpus=2)], jobs))] == ["a"]


def test_one_queue_lets_nobody_pass_the_largest() -> None:
    state, _ = step(at_start([node(gpus=2)], [job("a", 10)]), 0.0, [], POLICY)
    waiting = at_start([node(gpus=2)], [job("b", 10), job("gang", 10, gpus=2)]).waiting
    assert largest_first(type(state)(state.nodes, waiting=waiting, running=state.running)) == ()


def test_apart_keeps_small_models_off_the_gangs_nodes() -> None:
    nodes = [node("n0", 4), node("n1", 4)]
    jobs = [job(f"s{number}", 10) for number in range(16)] + [job(f"g{number}", 20, gpus=4) for number in range(2)]
    run = simulate(nodes, jobs, apart(nodes, jobs, POLICY))
    small = {device.node for span in run.spans if span.key.startswith("s") for device in span.devices}
    gangs = {device.node for span in run.spans if span.key.startswith("g") for device in span.devices}
    assert small.isdisjoint(gangs)
    assert run.makespan == 40


def test_apart_on_one_node_is_one_after_the_other() -> None:
    jobs = [job("s", 10), job("g", 20, gpus=2)]
    run = simulate([node(gpus=4)], jobs, apart([node(gpus=4)], jobs, POLICY))
    assert [(span.key, span.start) for span in run.spans] == [("g", 0), ("s", 20)]


def test_small_alone_and_gangs_alone_have_the_whole_fleet() -> None:
    nodes = [node("n0", 2), node("n1", 2)]
    for jobs in ([job(f"s{number}", 10) for number in range(4)], [job("g0", 10, gpus=2), job("g1", 10, gpus=2)]):
        assert simulate(nodes, jobs, apart(nodes, jobs, POLICY)).makespan == 10


def test_every_policy_runs_everything() -> None:
    nodes = [node("n0", 4), node("n1", 4)]
    jobs = [job(f"j{number}", 10 + number, gpus=1 + number % 4) for number in range(20)]
    runs = {name: simulate(nodes, jobs, policy) for name, policy in policies(nodes, jobs, POLICY).items()}
    assert all(len(run.spans) == len(jobs) for run in runs.values())
    assert min(runs, key=lambda name: runs[name].makespan) == "longest first, backfill"
    assert isinstance(next(iter(policies(nodes, jobs, POLICY).values())), partial)
