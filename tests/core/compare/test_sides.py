"""What a person's name for a side of a comparison stands for."""

import re
from typing import Any

import pytest

from core.compare.sides import Side, model_pairs, side
from core.errors import UserError

RUNS: list[dict[str, Any]] = [
    {"campaign": "nightly", "run": "2026-01", "models": [{"model": "m", "cells": {"gsm8k": "old"}}]},
    {
        "campaign": "nightly",
        "run": "2026-02",
        "models": [
            {"model": "m", "cells": {"gsm8k": "new", "mmlu": "open"}},
            {"model": "n", "cells": {"gsm8k": "other"}},
        ],
    },
]


def record(fingerprint: str, model: str, revision: str, committed: str) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint,
        "model": model,
        "benchmark": "gsm8k",
        "settings": {"revision": revision, "checkpoint": f"digest-of-{revision}"},
        "committed": committed,
    }


RECORDS = {
    "old": record("old", "m", "sha256:aaaa", "2026-01-01"),
    "new": record("new", "m", "sha256:bbbb", "2026-02-01"),
    "other": record("other", "n", "cccc", "2026-02-01"),
    "alone": record("alone", "alone", "dddd", "2026-03-01"),
    "later": record("later", "alone", "eeee", "2026-04-01"),
}


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("m", {"m": {"gsm8k": "new"}}),  # mmlu is not complete
        ("m@aa", {"m": {"gsm8k": "old"}}),
        ("m@sha256:bbbb", {"m": {"gsm8k": "new"}}),
        ("m@digest-of-sha256:aaaa", {"m": {"gsm8k": "old"}}),
        ("alone", {"alone": {"gsm8k": "later"}}),
        ("campaign:nightly", {"m": {"gsm8k": "new"}, "n": {"gsm8k": "other"}}),
        ("nightly", {"m": {"gsm8k": "new"}, "n": {"gsm8k": "other"}}),
        ("campaign:nightly@2026-01", {"m": {"gsm8k": "old"}}),
    ],
)
def test_names_stand_for_cells(name: str, models: dict[str, dict[str, str]]) -> None:
    assert side(name, RUNS, RECORDS) == Side(name, models)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nighty", "B = 'nighty': no such model or campaign — did you mean 'nightly'?"),
        ("campaign:m", "no such campaign; there are nightly"),
        ("m@ff", "B = 'm@ff': no such revision; it has sha256:aaaa, sha256:bbbb"),
        ("nightly@2027", "no such run; it has 2026-01, 2026-02"),
    ],
)
def test_a_name_that_matches_nothing_is_refused(name: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        side(name, RUNS, RECORDS, argument="B")


def test_within_a_campaign_only_its_cells_count() -> None:
    with pytest.raises(UserError, match="no such model or campaign"):
        side("alone", RUNS, RECORDS, campaign="nightly")


def test_two_single_models_pair_whatever_their_names_and_others_by_name() -> None:
    single, both = Side("m", {"m": {}}), Side("c", {"m": {}, "n": {}})
    assert model_pairs(single, Side("x", {"x": {}})) == [("m", "x")]
    assert model_pairs(single, both) == [("m", "m")]
    with pytest.raises(UserError, match="'x' has x and 'c' has m, n: name two models"):
        model_pairs(Side("x", {"x": {}}), both)
