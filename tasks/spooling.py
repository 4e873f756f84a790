"""A model's spool: answers that S3 does not take wait on the local disk, and are not forgotten there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from core.campaign import CampaignSpec
from core.errors import StoreError, UserError
from core.store.open import open_storage
from core.store.s3 import S3Storage
from core.store.spool import Spool, SpoolPlan, how_to_upload, left_behind, spool_root, upload
from tasks.say import say, warn


@asynccontextmanager
async def spooling(spec: CampaignSpec, run: str, model: str) -> AsyncIterator[Spool | None]:
    """Give a spool, empty again when the block has ended; None where results go to a local directory.

    What a killed process of this machine has left in one is brought in before. Raises `core.errors.StoreError` where the store
    stays away for longer than it is waited for, and says how to bring in what is left.
    """
    storage = open_storage(spec.results)
    if not isinstance(storage, S3Storage):
        yield None
        return
    policy = spec.policy
    plan = SpoolPlan(spool_root(policy.spool), policy.spool_gb * 1e9, policy.store_patience_seconds)
    await asyncio.to_thread(_bring_in, plan.root, storage.uri)
    spool = Spool(storage, plan, {"campaign": spec.name, "run": run, "model": model})
    failure: BaseException | None = None
    left: str | None = None
    try:
        yield spool
    except BaseException as error:
        failure = error
        if not isinstance(error, Exception):
            spool.hurry()
    try:
        await asyncio.to_thread(spool.drain)
    except StoreError as error:
        failure = failure or error
    finally:
        spool.hurry()
        left = await asyncio.shield(asyncio.to_thread(spool.close))
        if left is not None:
            warn(how_to_upload(left))
    if left is not None and isinstance(failure, Exception):
        raise StoreError(f"{failure}; {how_to_upload(left)}") from failure
    if failure is not None:
        raise failure


def _bring_in(root: Path, results: str) -> None:
    for folder in left_behind(root, results):
        try:
            say(f"{upload(folder)} shards of an earlier run are brought in from spool {folder}")
        except UserError as error:
            warn(f"spool {folder} stays: {error}")
