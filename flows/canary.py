"""Comparing the engines of a campaign that uses both, on one model and a canary set."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from typing import Any

from prefect.states import State

from core.campaign import CampaignSpec
from core.errors import StoreError, UserError
from core.log import log
from core.model.placement import Plan
from core.planning.canary import ENGINES, canary_key, choose, compare
from core.storage.open import open_storage
from core.store.runs import read_answers, read_finding, write_finding
from flows.dispatch import evaluate_models
from flows.interrupt import run_interruptible


def check_engines(spec: CampaignSpec, plan: Plan, run: str) -> dict[str, Any] | None:
    """Have both engines answer the canary set, where the campaign uses both, and return whether they agree.

    A finding for the same model, versions and degrees is taken from the store. Returns JSON values for the run's manifest:
    ``text`` and, where both answered, `core.planning.canary.Canary`'s fields; None for a campaign of one engine. Never fails
    the campaign.
    """
    if not spec.canary or len({planned.placement.engine for planned in plan.models}) < len(ENGINES):
        return None
    try:
        return _checked(spec, plan, run)
    except StoreError as error:
        return _untested(str(error))


def _checked(spec: CampaignSpec, plan: Plan, run: str) -> dict[str, Any]:
    pair = choose(spec, plan)
    if pair is None:
        return _untested("no model of the campaign fits both")
    storage, key = open_storage(spec.results), canary_key(pair)
    if (known := read_finding(storage, key)) is not None:
        return known
    light = pair["lightweight"]

    async def both() -> list[State]:
        answered = await asyncio.gather(
            *(
                evaluate_models(
                    spec.model_copy(update={"models": [planned.model]}), Plan(plan.fleet, (planned,)), run, "canary"
                )
                for planned in pair.values()
            )
        )
        return [state for states in answered for state in states.values()]

    states = run_interruptible(both)
    if failed := next((state for state in states if not state.is_completed()), None):
        return _untested(f"{light.model.name} as canary: {failed.message or failed.name}")
    sides = {engine: read_answers(storage, spec.name, run, engine) for engine in ENGINES}
    try:
        found = compare(light.model.name, light.placement.dtype, sides)
    except UserError as error:
        return _untested(f"{light.model.name} as canary: {error}")
    log.log(logging.WARNING if found.faults else logging.INFO, "%s", found)
    finding = {**asdict(found), "text": str(found)}
    write_finding(storage, key, finding)
    return finding


def _untested(reason: str) -> dict[str, Any]:
    text = f"Whether both engines score alike is not known: {reason}"
    log.warning(text)
    return {"text": text}
