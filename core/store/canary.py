"""Canary sets in the results store: answers under the run that asked for them, findings under what decides them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from core.request import Response
from core.storage.storage import Storage, path_part
from core.store.schema import RESPONSES, decode, encode, responses_of, responses_table


def write_answers(storage: Storage, campaign: str, run: str, engine: str, responses: Iterable[Response]) -> None:
    """Store one engine's answers to the canary set."""
    storage.put(_answers_path(campaign, run, engine), encode(responses_table(responses)))


def read_answers(storage: Storage, campaign: str, run: str, engine: str) -> list[Response]:
    """Return one engine's answers to the canary set; none where there are none."""
    data = storage.read(_answers_path(campaign, run, engine))
    return [] if data is None else responses_of(decode(data, RESPONSES))


def write_finding(storage: Storage, key: str, finding: Mapping[str, Any]) -> None:
    """Store what a canary set said, as JSON values, under its `core.planning.canary.canary_key`."""
    storage.put(_finding_path(key), json.dumps(finding, indent=2).encode())


def read_finding(storage: Storage, key: str) -> dict[str, Any] | None:
    """Return what `write_finding` stored, or None."""
    data = storage.read(_finding_path(key))
    return None if data is None else json.loads(data)


def _answers_path(campaign: str, run: str, engine: str) -> str:
    return f"canaries/campaign={path_part(campaign)}/run={path_part(run)}/{path_part(engine)}.parquet"


def _finding_path(key: str) -> str:
    return f"canaries/{path_part(key)}.json"
