"""``steelyard simulate``: campaigns on a fleet that need not exist, on a virtual clock; and the estimates that ``plan`` prints."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.campaign import CampaignSpec, load_spec
from core.errors import StoreError, StoreKeysError, UserError
from core.model.checkpoint import read_checkpoint
from core.model.fleet import resolve_fleet
from core.model.placement import Plan
from core.planning.cost.estimate import Estimator, ModelEstimate, placed_everywhere, plan_estimate
from core.planning.cost.history import History, read_history
from core.planning.cost.model import past_error
from core.planning.schedule.fleet_file import NodeGroup, group_of, load_fleet, nodes_of
from core.planning.schedule.scheduler import SchedulingPolicy
from core.results import open_store
from deployments.console import console, print_lines


def simulate(
    spec_paths: Annotated[
        list[Path], typer.Argument(metavar="CAMPAIGN.YAML...", help="One campaign or several at once.")
    ],
    fleet_path: Annotated[
        Path | None,
        typer.Option(
            "--fleet", metavar="FLEET.YAML", help="Groups of machines; the first campaign's fleet if left out."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to draw the Gantt chart.")] = None,
    error: Annotated[
        float, typer.Option(min=0, max=2, help="How far times stray from their estimates: deviation of the logarithm.")
    ] = 0.0,
) -> None:
    """Play campaigns through on a virtual clock: makespan, lower bound, utilisation and waiting of each way to schedule."""
    from core.planning.schedule.bound import lower_bound
    from core.planning.schedule.gantt import bound_line, simulation_table, write_gantt
    from core.planning.schedule.simulate import policies, really
    from core.planning.schedule.simulate import simulate as play

    specs = [load_spec(path) for path in spec_paths]
    if len({spec.name for spec in specs}) < len(specs):
        raise UserError("two campaigns have one name: give each its own")
    groups = load_fleet(fleet_path) if fleet_path else (group_of(resolve_fleet(specs[0].fleet)),)
    nodes, out = nodes_of(groups), console()
    jobs = [model.job() for spec in specs for model in _estimates(spec, groups, out)]
    factors = {job.key: _factor(job.key, error) for job in jobs}
    ways = policies(nodes, jobs, SchedulingPolicy())
    runs = {name: play(nodes, jobs, decide, factors=factors) for name, decide in ways.items()}
    bound = lower_bound(nodes, [really(job, factors[job.key]) for job in jobs])
    out.print(simulation_table(runs, bound))
    out.print(bound_line(bound, nodes, jobs), soft_wrap=True)
    if html is not None:
        write_gantt(html, runs, nodes, bound)
        out.print(f"Gantt chart: {html}", soft_wrap=True)


def print_estimate(spec: CampaignSpec, plan: Plan, past: tuple[History, list[str]], out: Console) -> None:
    """Print what a planned campaign will take, and how good such estimates were; ``past`` is `past_runs`."""
    from core.planning.describe import basis_lines, campaign_lines, estimate_table

    history, notes = past
    whole = plan_estimate(spec, plan, history)
    out.print(estimate_table(whole, group_of(plan.fleet).price_per_gpu_hour))
    learnt = campaign_lines(whole, past_error(history.jobs), len(history.jobs))
    print_lines(out, [*learnt, *basis_lines(whole.models), *notes])


def _estimates(spec: CampaignSpec, groups: Sequence[NodeGroup], out: Console) -> list[ModelEstimate]:
    history, notes = past_runs(spec, groups[0])
    print_lines(out, notes)
    estimator = Estimator(history)
    found, problems = [], []
    for model in spec.models:
        try:
            checkpoint = read_checkpoint(
                model.model, model.revision, trust_remote_code=model.trust_remote_code, arguments=model.vllm
            )
            placements = placed_everywhere(checkpoint, model, groups, spec.policy)
            found.append(estimator.estimate(spec, model, checkpoint, placements))
        except UserError as error:
            problems.append(str(error) if repr(model.name) in str(error) else f"model {model.name!r}: {error}")
    if problems:
        raise UserError("\n".join(problems))
    return found


def past_runs(spec: CampaignSpec, group: NodeGroup) -> tuple[History, list[str]]:
    """Return what the store tells of past runs, and notes on what it does not.

    Raises `core.errors.UserError` where a run would be refused for want of keys or of a place.
    """
    try:
        return read_history(open_store(spec.results), group.kind), []
    except StoreKeysError:  # a run would be refused for the same
        raise
    except StoreError as error:
        return History(), [f"No past runs are used: {error}"]


def _factor(key: str, error: float) -> float:
    """Return how a job's real time strays from its estimate; the same in every policy and every call."""
    return math.exp(random.Random(key).gauss(0.0, error))  # noqa: S311 - dice, no secrets
