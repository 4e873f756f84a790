"""Fingerprints as they were written down on 2026-12-01: no change of the code may change what a store knows cells by.

They hold for the pinned lm-eval, whose version is part of a cell; raising the pin rewrites them, and nothing else may.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.benchmark.cell import make_cell
from core.benchmark.prepare import prepare_cell
from core.campaign import BenchmarkSpec, CampaignSpec, FleetSpec
from core.model.checkpoint import read_checkpoint
from core.model.placement import PlannedModel, place
from core.planning.canary import canary_key
from core.sample import Sample
from core.scoring.judge import Judging
from core.scoring.judge_spec import JudgeSpec
from tests.checkpoints import write_checkpoint
from tests.core.real_configs import real

FLEET: dict[str, Any] = {"gpus": 8, "gpu_memory_gb": 80, "device": "cuda"}
FACTS: dict[str, Any] = {"name": "steelyard_facts", "limit": 8}
GOLDEN: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "facts": ({}, FACTS, "351196144c06294461bf8155dd8c0409c1ababc7ca6eb703f939df3e959b3e78"),
    "all of facts, 5-shot": (
        {},
        {"name": "steelyard_facts", "num_fewshot": 5},
        "1dd972c177e58b2fefd4db1d119feffb73d82eccf489311040c6dc7416957774",
    ),
    "facts, the first shots": (
        {},
        {**FACTS, "num_fewshot": 2, "fewshot_sampler": "first_n"},
        "eb07e8dfcf405dc4196f7c2e5458c67db5e6f143a585bcb6774948d7b197e8f8",
    ),
    "another seed": (
        {},
        {**FACTS, "seed": 7, "num_fewshot": 2},
        "887a8e665950cc6727c57a0a2786a08877c6cc48132acd668b8d0b5cafa95f41",
    ),
    "letters": (
        {},
        {"name": "steelyard_letters", "limit": 8},
        "b758a742c21b497e955c1e361c42bfb433c54f8b37899302928821d59c85b687",
    ),
    "arithmetic": (
        {},
        {"name": "steelyard_arithmetic", "limit": 8},
        "61d462cf2514907061e405357357df6c9e0f515e24016e7e5bcd7144b88555a2",
    ),
    "arithmetic, sampled thrice": (
        {},
        {"name": "steelyard_arithmetic", "limit": 4, "repeats": 3, "sampling": {"temperature": 0.7, "seed": 3}},
        "aa6d908178fabd7ca2f4cad552ffda4c257a517764708dce63587040655b154e",
    ),
    "prose": (
        {},
        {"name": "steelyard_prose", "limit": 4},
        "fb8190d3e87cef3a8bdd543d1d85e06fe12a7ef32918d3b0acb2031fa864509e",
    ),
    "shorter window, another type": (
        {"max_model_len": 2048, "dtype": "float32"},
        FACTS,
        "79dce805b82f110b364fc7d4a003fdfdaef19b18c4f580ad43a7f857c639fb82",
    ),
    "vllm's arguments": (
        {"vllm": {"quantization": "fp8", "max_num_seqs": 8}},
        FACTS,
        "76a63ea64d5d4985036dcb7adfd090bca5c4914a00d8a4586a2dd149f7350f20",
    ),
    "thinking": (
        {"think_end_token": "</think>"},
        {"name": "steelyard_arithmetic", "limit": 4},
        "58bdf98ce7945a371678399d27e553c5e891867145a7b51a3286599075bf23f7",
    ),
    "somebody's code": (
        {"trust_remote_code": True},
        FACTS,
        "209ececb5887fb979a04349c40091b63987c90520ca814b7fc2958fd21a9e50e",
    ),
    "adaptive": (
        {},
        {"name": "steelyard_facts", "adaptive": {"against": ["base"]}},
        "011342b3538b56f17a7578d08fdb157ced4c480fce4cd5cb4c5adc2c75989901",
    ),
    "another checkpoint": (
        {"model": "qwen"},
        FACTS,
        "c1af22a65c7a30eeabf0bc72c0ac45248256a254bed7f15b5a7c6da109227a81",
    ),
}
IDENTITY = "61b20608c23ac7843a93618ba1109e2a2358de32d9939392e41635f57e8594bf"
JUDGED = "a7da69db41f9b4d359495314d8688cbd10fcb33dd47ce24d67aea54557798999"
CANARY = "8189294af17e7830568df80a3b52d1df904a1d8b25f06f5b1e322fefb80863f6"


def planned(campaign: CampaignSpec) -> PlannedModel:
    (model,) = (each for each in campaign.models if each.name == "asked")
    checkpoint = replace(real("Qwen3-32B" if model.model == "qwen" else "Llama-3.1-8B"), identity="golden")
    return PlannedModel(model, checkpoint, place(checkpoint, model, FleetSpec.model_validate(FLEET), campaign.policy))


def spec(model: dict[str, Any], benchmark: dict[str, Any]) -> tuple[CampaignSpec, BenchmarkSpec]:
    asked = dict(benchmark)
    fields = {
        "name": "golden",
        "seed": asked.pop("seed", 0),
        "models": [{"model": "llama", "name": "asked", **model}, {"model": "llama", "name": "base"}],
        "benchmarks": [asked],
        "fleet": FLEET,
        "results": "results",
    }
    campaign = CampaignSpec.model_validate(fields)
    return campaign, campaign.benchmarks[0]


@pytest.mark.parametrize("name", GOLDEN)
def test_a_cell_s_fingerprint_is_what_it_was(name: str, tmp_path: Any) -> None:
    model, asked, fingerprint = GOLDEN[name]
    campaign, benchmark = spec(model, asked)
    assert prepare_cell(campaign, planned(campaign), tmp_path, benchmark).cell.fingerprint == fingerprint


def test_a_checkpoint_s_identity_is_what_it_was(tmp_path: Any) -> None:
    assert read_checkpoint(str(write_checkpoint(tmp_path / "tiny"))).identity == IDENTITY


def test_a_judge_s_cell_is_what_it_was() -> None:
    sample = Sample(task="t", doc_id=0, doc='{"q": 1}', prompt="p", choices=(), target="t", texts=("an answer",))
    judging = Judging(JudgeSpec(model="asked", prompt="Rate {{answer}} from {{low}} to {{high}}"), "b", (sample,))
    campaign, _ = spec({}, FACTS)
    judge = planned(campaign)
    cell = make_cell(judge.model, judge.checkpoint, judge.placement, judging.label, judging.settings)
    assert cell.fingerprint == JUDGED


def test_the_canary_s_key_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "core.planning.canary.installed_version", lambda name: None
    )  # whichever build of vLLM is installed
    lightweight, _ = spec({"engine": "lightweight"}, FACTS)
    distributed, _ = spec({"engine": "distributed", "tensor_parallel": 2}, FACTS)
    pair = {"lightweight": planned(lightweight), "distributed": planned(distributed)}
    assert canary_key(pair) == CANARY
