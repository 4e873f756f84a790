"""What failed in a campaign's last run, run again. Engines are scripted; everything else is real."""

from __future__ import annotations

from typing import Any

import pytest

from core.campaign import load_spec
from core.errors import EngineDiedError, UserError
from core.planning.plan import check_campaign
from core.request import Generate, Generated, Request, Response
from core.results import open_store
from core.upkeep.recompute import find_failed, reopen
from flows.campaign import CampaignFailedError, campaign
from tests.core.store_parts import METADATA, make_cell, make_scoring
from tests.flows.scripted import LIMIT, Engines, answer

pytestmark = pytest.mark.slow


def fails_once(request: Request) -> Response:
    if isinstance(request, Generate) and request.id.split("/")[-3] == "2":
        return Generated(request.id, "", "error", 0, 0, error="prompt longer than the window")
    return answer(request)


def dies(request: Request) -> Response:
    raise EngineDiedError("killed by signal 9")


def test_only_what_failed_is_asked_again_and_the_leaderboard_stays_whole(
    engines: Engines, spec: dict[str, Any]
) -> None:
    engines.scripts |= {"first": fails_once, "second": answer}
    campaign(spec)
    parsed = load_spec(spec)
    failed = find_failed(parsed)
    assert failed.models == ("first",)
    assert [row.benchmark for row in failed.cells] == ["steelyard_arithmetic"]
    engines.scripts.clear()
    engines.built.clear()
    reopen(parsed, check_campaign(parsed), failed)
    result = campaign(spec, list(failed.models))
    assert list(engines.built) == ["first"]
    assert len(engines.built["first"].seen) == 1
    assert len(result.leaderboard) == 4
    samples = open_store(spec["results"]).samples("flows")
    assert len(samples) == 4 * LIMIT
    assert samples["error"].isna().all()
    assert find_failed(parsed).models == ()


def test_a_model_that_failed_is_run_again_alone(engines: Engines, spec: dict[str, Any]) -> None:
    engines.scripts["second"] = dies
    with pytest.raises(CampaignFailedError):
        campaign(spec)
    failed = find_failed(load_spec(spec))
    assert (failed.models, failed.cells) == (("second",), ())
    engines.scripts.clear()
    engines.built.clear()
    assert len(campaign(spec, ["second"]).leaderboard) == 4
    assert list(engines.built) == ["second"]


def test_a_model_that_failed_as_judge_is_one_that_failed(spec: dict[str, Any]) -> None:
    store = open_store(spec["results"])
    for letter, model in (("a", "first"), ("b", "second")):
        store.commit(make_cell(letter, model), make_scoring(), METADATA)
        labels = ("steelyard_facts", "steelyard_arithmetic")
        store.write_model_run("flows", "1", {"model": model, "cells": dict.fromkeys(labels, letter * 64)})
    store.write_campaign({"campaign": "flows", "run": "1", "failures": {}})
    assert find_failed(load_spec(spec)).models == ()
    store.write_campaign({"campaign": "flows", "run": "1", "failures": {"second": "as judge: out of memory"}})
    assert find_failed(load_spec(spec)).models == ("second",)


def test_a_model_that_the_campaign_has_not_is_named(engines: Engines, spec: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="only = 'frist': the campaign has no such model — did you mean 'first'"):
        campaign(spec, ["frist"])
