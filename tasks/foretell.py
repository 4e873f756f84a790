"""What a campaign will take, told before it runs: for the queue, and to be compared with what it took."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from core.campaign import CampaignSpec
from core.cost.estimate import plan_estimate
from core.cost.expected import Expected, expectations, totals
from core.cost.history import History, read_history
from core.errors import StoreError
from core.plan import Plan
from core.results import open_store
from core.schedule.fleet_file import group_of, nodes_of
from core.tables import duration
from tasks.say import say, warn

MOST_CELLS = 500  # of the store that are learnt from: the campaign waits for it


@dataclass(frozen=True)
class Forecast:
    """What is expected of each model, by name, and of the whole campaign (`core.cost.expected.totals`)."""

    models: dict[str, Expected] = field(default_factory=dict)
    whole: dict[str, Any] | None = None


@task(task_run_name="foretell", cache_policy=NO_CACHE)
def foretell(spec: CampaignSpec, plan: Plan) -> Forecast:
    """Estimate every planned model by the store's history. A store that cannot be read leaves the priors."""
    group = group_of(plan.fleet)
    try:
        history = read_history(open_store(spec.results), group.kind, MOST_CELLS)
    except StoreError as error:
        warn(f"nothing is learnt from past runs: {error}")
        history = History()
    estimate = plan_estimate(spec, plan, history)
    low, middle, high = estimate.makespan
    say(f"expected to take {duration(middle)} ({duration(low)} – {duration(high)}) if nothing were stored yet")
    return Forecast(expectations(estimate, nodes_of([group]), time.time()), totals(estimate))
