"""Settings of a generation, as lm-eval's own vLLM backend hands them to vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from core.benchmark.sampling import sampling_of
from core.campaign import SamplingSpec
from core.catalogue.index import harness_index
from core.errors import UserError
from core.request import Sampling


def test_sampling_follows_the_task_and_then_the_campaign() -> None:
    task = {"until": "\n", "max_gen_toks": 9, "do_sample": True, "top_p": 0.5}
    sampling = sampling_of(task, SamplingSpec())
    assert (sampling.until, sampling.max_tokens, sampling.temperature, sampling.top_p) == (("\n",), 9, 1.0, 0.5)
    assert sampling_of(task, SamplingSpec(max_tokens=5, until=["x"])).max_tokens == 5
    assert sampling_of({}, SamplingSpec()) == Sampling(max_tokens=256)
    assert sampling_of({"repetition_penalty": 1.5}, SamplingSpec()).extra == {"repetition_penalty": 1.5}


@pytest.mark.parametrize(
    ("given", "temperature"),
    [
        ({"do_sample": True, "temperature": 0.0}, 0.0),
        ({"do_sample": True, "temperature": "0"}, 0.0),
        ({"do_sample": True, "temperature": 0.3}, 0.3),
        ({"do_sample": True}, 1.0),
        ({"do_sample": False, "temperature": 0.7}, 0.0),
        ({"do_sample": None, "temperature": 0.7}, 0.7),
        ({"temperature": 0.7}, 0.7),
        ({"do_sample": False}, 0.0),
        ({"num_beams": 1, "early_stopping": True, "do_sample": True}, 1.0),
        ({}, 0.0),
    ],
)
def test_only_a_temperature_that_is_not_stated_is_one_where_a_task_samples(
    given: dict[str, Any], temperature: float
) -> None:
    sampling = sampling_of(given, SamplingSpec())
    assert sampling.temperature == temperature
    assert sampling.extra == {}
    assert sampling_of(given, SamplingSpec(temperature=0.5)).temperature == 0.5


@pytest.mark.parametrize("given", [{"num_beams": 2}, {"length_penalty": 1.0}])
def test_what_a_task_s_code_asks_that_vllm_lacks_is_refused(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(UserError, match=f"generation_kwargs.{name} = "):
        sampling_of(given, SamplingSpec())


def test_every_setting_of_the_catalogue_is_what_the_harness_s_vllm_backend_makes_of_it() -> None:
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

    seen, refused = set(), []
    for entry in harness_index().entries.values():
        given = (entry.config or {}).get("generation_kwargs")
        if not isinstance(given, dict) or repr(given) in seen:
            continue
        seen.add(repr(given))
        theirs = dict(normalize_gen_kwargs(given))  # what VLLM.modify_gen_kwargs begins with
        try:
            ours = sampling_of(given, SamplingSpec())
        except UserError:
            refused.append(given)
            continue
        assert list(ours.until) == handle_stop_sequences(theirs["until"], None)
        assert ours.max_tokens == theirs["max_gen_toks"]
        assert ours.temperature == theirs.get("temperature", 1.0 if theirs["do_sample"] else 0.0)
        assert ours.top_p == theirs.get("top_p", 1.0)
    assert len(seen) > 150
    assert [given["num_beams"] for given in refused] == [10] * len(refused)
