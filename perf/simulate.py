"""How good the schedule is: random mixed campaigns, simulated under each policy, against a bound that no schedule can beat.

``python -m perf.simulate`` draws fleets of one to three kinds of GPU and models from 0.1 to 700 billion parameters on a few or
many benchmarks, places each model as a campaign would, takes its times from the cost model's priors, and prints makespan / lower
bound of each policy, with times as estimated and with times that stray from the estimates. ``--scale`` plans and simulates 1,000
models on 512 GPUs instead, and says how stable the plan is when one job changes.
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

from rich.console import Console

from core.campaign import BenchmarkSpec, ModelSpec, PolicySpec
from core.errors import CannotPlaceError
from core.model.checkpoint import Checkpoint
from core.planning.cost.estimate import Estimator, placed_everywhere
from core.planning.cost.history import History
from core.planning.cost.workload import DOCS, Workload, expected_tokens, workload
from core.planning.schedule.bound import lower_bound
from core.planning.schedule.fleet_file import NodeGroup, nodes_of
from core.planning.schedule.jobs import Node, ScheduledJob, at_start
from core.planning.schedule.scheduler import SchedulingPolicy, choose, timetable
from core.planning.schedule.simulate import policies, really, simulate
from core.tables import Row, Table, numbers, texts

GPUS = (
    {"gpu_kind": "H100", "gpu_memory_gb": 80, "gpus": 8},
    {"gpu_kind": "A100", "gpu_memory_gb": 80, "gpus": 8},
    {"gpu_kind": "L40S", "gpu_memory_gb": 48, "gpus": 4},
    {"gpu_kind": "H200", "gpu_memory_gb": 141, "gpus": 8},
    {"gpu_kind": "A10", "gpu_memory_gb": 24, "gpus": 4},
)
FEWEST_MODELS, MOST_MODELS = 10, 200
STRAY = 0.2  # deviation of the logarithm of real times about their estimates


@dataclass(frozen=True)
class Ratio:
    """One policy on one campaign: makespan / bound, share of GPU time held, and mean seconds of waiting / makespan."""

    policy: str
    stray: float
    ratio: float
    utilisation: float
    waiting: float


@cache
def _benchmarks() -> tuple[Workload, ...]:
    return tuple(workload(BenchmarkSpec(name=name), "", ()) for name in DOCS)


def checkpoint_of(rng: random.Random, name: str, most: float) -> Checkpoint:
    """A model of 0.1 to ``most`` billion parameters, half of them below 7: 16-bit, or 8-bit where it is large."""
    billions = min(most, max(0.1, 7 * math.exp(rng.gauss(0, 1.5))))
    eight_bit = billions > 60 and rng.random() < 0.4
    layers = min(128, max(12, round(8 * billions**0.5)))
    return Checkpoint(
        source=name,
        revision="",
        identity=name,
        architecture="RandomForCausalLM",
        dtype="float8_e4m3fn" if eight_bit else "bfloat16",
        quantization="fp8" if eight_bit else None,
        parameters=round(billions * 1e9),
        weight_bytes=round(billions * 1e9 * (1 if eight_bit else 2)),
        layers=layers,
        hidden_size=64 * 128,
        attention_heads=64,
        kv_heads=8,
        head_dim=128,
        kv_bytes_per_token=layers * 2 * 8 * 128 * 2,
        kv_replicated=False,
        context_window=8192,
        experts=0,
        multimodal=False,
        has_chat_template=True,
    )


def draw(
    rng: random.Random,
    machines: int,
    kinds: int,
    *,
    models: int | None = None,
    benchmarks: int | None = None,
    most: float = 700,
) -> tuple[tuple[Node, ...], list[ScheduledJob]]:
    """A fleet and a campaign on it; models that fit nowhere in the fleet are drawn again.

    Without a number of ``models`` they are drawn until the work, spread over all GPUs, takes 0.5 to 3 times as long as the longest:
    where one model takes longer than all others together, any schedule is as good as another.
    """
    chosen = rng.sample(GPUS, kinds)
    counts = [machines // kinds + (index < machines % kinds) for index in range(kinds)]
    groups = [
        NodeGroup.model_validate({**make, "nodes": count}) for make, count in zip(chosen, counts, strict=True) if count
    ]
    estimator, policy = Estimator(History()), PolicySpec()
    jobs: list[ScheduledJob] = []
    nodes, fullness = nodes_of(groups), rng.uniform(0.5, 3)
    while len(jobs) < models if models else not _full(nodes, jobs, fullness):
        checkpoint = checkpoint_of(rng, f"model-{len(jobs):04d}", most)
        try:
            placements = placed_everywhere(checkpoint, ModelSpec(model=checkpoint.source), groups, policy)
        except CannotPlaceError:
            continue
        count = benchmarks or rng.randint(3, 30)
        tokens, _ = expected_tokens(rng.choices(_benchmarks(), k=count))
        # Answers differ in length, and prefix caches in use.
        tokens = replace(
            tokens,
            decoded=tokens.decoded * rng.lognormvariate(0, 0.5),
            computed=tokens.computed * rng.lognormvariate(0, 0.3),
        )
        timed = (estimator.timed(checkpoint, placement, group, policy, tokens) for group, placement in placements)
        jobs.append(ScheduledJob(checkpoint.source, tuple(each.option() for each in timed), "campaign"))
    return nodes, jobs


def _full(nodes: Sequence[Node], jobs: Sequence[ScheduledJob], fullness: float) -> bool:
    if len(jobs) < FEWEST_MODELS:
        return False
    gpus = sum(node.gpus for node in nodes)
    work = sum(job.gpu_seconds for job in jobs)
    return len(jobs) >= MOST_MODELS or work / gpus >= fullness * max(job.quickest.seconds for job in jobs)


def compare(seed: int) -> list[Ratio]:
    """Draw one campaign and simulate it under each policy, with exact and with straying times."""
    rng = random.Random(seed)
    machines = rng.choice((1, 2, 3, 4, 6, 8, 12))
    nodes, jobs = draw(rng, machines, kinds=min(machines, rng.choice((1, 1, 2, 3))))
    found = []
    for stray in (0.0, STRAY):
        factors = {job.key: rng.lognormvariate(0, stray) for job in jobs}
        bound = lower_bound(nodes, [really(job, factors[job.key]) for job in jobs]).seconds
        for name, decide in policies(nodes, jobs, SchedulingPolicy()).items():
            run = simulate(nodes, jobs, decide, factors=factors)
            if len(run.spans) != len(jobs):
                raise AssertionError(f"seed {seed}, {name}: {len(run.spans)} of {len(jobs)} jobs ran")
            wait = sum(run.waits.values()) / len(jobs) / run.makespan
            found.append(Ratio(name, stray, run.makespan / bound, run.utilisation, wait))
    return found


def table(ratios: Sequence[Ratio], campaigns: int) -> Table:
    """Quantiles of makespan / lower bound by policy."""
    rows = []
    for stray in (0.0, STRAY):
        for policy in dict.fromkeys(ratio.policy for ratio in ratios):
            mine = [ratio for ratio in ratios if (ratio.policy, ratio.stray) == (policy, stray)]
            values = sorted(ratio.ratio for ratio in mine)
            cells = (
                policy,
                f"stray {stray:.0%}" if stray else "as estimated",
                *(f"{values[min(len(values) - 1, int(len(values) * q))]:.3f}" for q in (0.5, 0.9, 0.99, 1.0)),
                f"{median(ratio.utilisation for ratio in mine):.1%}",
                f"{median(ratio.waiting for ratio in mine):.2f}",
            )
            rows.append(Row(cells))
    figures = numbers("median", "p90", "p99", "largest", "GPUs held", "mean wait / makespan")
    title = f"{campaigns:,} random mixed campaigns, makespan / lower bound"
    return Table(title, (*texts("policy", "times"), *figures), rows)


def scale(out: Console) -> None:
    """Plan and simulate 1,000 models × 100 benchmarks on 512 GPUs of three kinds."""
    nodes, jobs = draw(random.Random(1), 76, 3, models=1000, benchmarks=100, most=150)
    policy = SchedulingPolicy()
    gpus = sum(node.gpus for node in nodes)
    out.print(f"{len(jobs):,} models × 100 benchmarks on {gpus} GPUs in {len(nodes)} nodes")
    state = at_start(nodes, jobs)
    begun = time.process_time()
    chosen = choose(state, policy)
    plan = timetable(state, chosen)
    out.print(f"plan: {time.process_time() - begun:.2f} s of one core")
    bound = lower_bound(nodes, jobs).seconds
    for name, decide in policies(nodes, jobs, policy).items():
        begun = time.process_time()
        run = simulate(nodes, jobs, decide)
        took = time.process_time() - begun
        out.print(f"{name}: simulated in {took:.2f} s, makespan / bound {run.makespan / bound:.3f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out.print(f"peak memory of the process: {peak:.0f} MiB")
    moved, later, flips = [], [], []
    for index in range(0, len(jobs), 50):
        changed = [really(job, 1.3) if number == index else job for number, job in enumerate(jobs)]
        other_state = at_start(nodes, changed)
        other_policy = choose(other_state, chosen)
        other = timetable(other_state, other_policy)
        flips.append(other_policy != chosen)
        pairs = [(slot, other.slots[key]) for key, slot in plan.slots.items() if key != jobs[index].key]
        moved.append(sum(a.groups != b.groups or a.option.kind != b.option.kind for a, b in pairs) / len(pairs))
        later.append(median(abs(a.start - b.start) for a, b in pairs) / plan.ends)
    out.print(
        f"one job 30% longer, {len(moved)} times: order changed {sum(flips)} times; of the other jobs {median(moved):.1%} go "
        f"to other nodes, starts move by {median(later):.2%} of the makespan (medians)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perf.simulate", description=__doc__)
    parser.add_argument("--campaigns", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first campaign")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scale", action="store_true", help="1,000 models on 512 GPUs instead")
    asked = parser.parse_args()
    out = Console(width=140)
    if asked.scale:
        scale(out)
        return
    seeds = range(asked.first, asked.first + asked.campaigns)
    with ProcessPoolExecutor(asked.processes) as pool:
        ratios = [ratio for found in pool.map(compare, seeds, chunksize=10) for ratio in found]
    out.print(table(ratios, asked.campaigns))


if __name__ == "__main__":
    begun = time.monotonic()
    main()
    print(f"in {time.monotonic() - begun:.0f} s")
