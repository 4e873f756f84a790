"""Specs: what is read, what is refused, and what means the same from another directory."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.campaign import CampaignSpec, ModelSpec, absolute_paths, benchmark_label, load_spec, safe_name
from core.errors import UserError

MINIMAL: dict[str, Any] = {"name": "nightly", "models": ["org/model"], "benchmarks": ["gsm8k"]}


def refused(**changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_spec(MINIMAL | changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_strings_stand_for_models_and_benchmarks() -> None:
    spec = load_spec(MINIMAL)
    assert (spec.models[0].model, spec.models[0].name) == ("org/model", "model")
    assert spec.benchmarks[0].name == "gsm8k"


def test_the_documented_example_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text(
        """
name: nightly
models:
  - model: HuggingFaceTB/SmolLM2-135M-Instruct
  - {model: /data/llama-70b, name: llama-70b, engine: distributed, tensor_parallel: 4}
benchmarks: [gsm8k, {name: mmlu, num_fewshot: 5, limit: 200}, my_tasks/own.yaml]
fleet: {nodes: 1, gpus: 8, gpu_memory_gb: 80}
results: s3://evals/nightly
"""
    )
    spec = load_spec(path)
    assert [model.name for model in spec.models] == ["SmolLM2-135M-Instruct", "llama-70b"]
    assert spec.benchmarks[2].name == str(tmp_path / "my_tasks/own.yaml")
    assert benchmark_label(spec.benchmarks[2]) == "own"
    assert load_spec(spec) is spec


def test_json_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "campaign.json"
    path.write_text(CampaignSpec.model_validate(MINIMAL).model_dump_json())
    assert load_spec(path) == CampaignSpec.model_validate(MINIMAL)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resuts": "x"}, ["resuts", "did you mean 'results'"]),
        ({"models": [{"model": "m", "tensor_paralel": 2}]}, ["models[0]", "did you mean 'tensor_parallel'"]),
        ({"benchmarks": [{"name": "b", "limit": -5}]}, ["benchmarks[0].limit", "-5", "greater than 0"]),
        ({"benchmarks": [{"name": "b", "sampling": {"temprature": 1}}]}, ["sampling", "did you mean 'temperature'"]),
        ({"models": ["a/x", "b/x"]}, ["two entries are named 'x'"]),
        ({"benchmarks": ["mmlu", {"name": "mmlu", "limit": 3}]}, ["two entries are named 'mmlu'"]),
        ({"models": [{"model": "m", "engine": "distribted"}]}, ["engine", "did you mean 'distributed'"]),
        ({"models": [{"model": "m", "name": "../../etc"}]}, ["models[0].name", "'../../etc'"]),
        ({"models": [{"model": "m", "system_prompt": "hi"}]}, ["system_prompt needs chat_template"]),
        ({"models": [{"model": "m", "engine": "lightweight", "tensor_parallel": 2}]}, ["one GPU"]),
        ({"models": []}, ["models"]),
        ({"fleet": {"gpus": 0}}, ["fleet.gpus", "0"]),
        ({"results": "gs://bucket"}, ["results", "s3://bucket/prefix"]),
        ({"results": "s3://"}, ["needs a bucket"]),
        ({"name": "a/b"}, ["name", "'a/b'"]),
    ],
)
def test_wrong_fields_are_refused_with_field_value_and_fix(changes: dict[str, Any], words: list[str]) -> None:
    message = refused(**changes)
    for word in words:
        assert word in message


def test_a_missing_field_is_named() -> None:
    with pytest.raises(UserError, match="benchmarks is missing: add it"):
        load_spec({"name": "x", "models": ["m"]})


def test_python_users_see_the_nearest_name_too() -> None:
    with pytest.raises(ValidationError, match="did you mean 'results'"):
        CampaignSpec.model_validate(MINIMAL | {"resuts": "x"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [unclosed", "is not YAML at line 1"),
        ("just words", "is not a mapping"),
        ("- a\n- b", "is not a mapping"),
    ],
)
def test_a_spec_that_is_not_yaml_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        load_spec(path)


def test_a_missing_spec_is_refused() -> None:
    with pytest.raises(UserError, match="No such file"):
        load_spec("/nowhere/spec.yaml")


def test_names_from_paths_are_safe_as_path_segments() -> None:
    assert safe_name("s3://bucket/ckpt/step 100/") == "step-100"
    assert safe_name("../..") == "model"


def test_local_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    spec = load_spec(
        {
            "name": "n",
            "models": ["./m", "here", "~/x", "a/b/c", "/data/d"],
            "benchmarks": ["gsm8k", "tasks/own.yaml", {"name": "/t/other.yml", "limit": 3}],
            "results": "out",
        }
    )
    moved = absolute_paths(spec)
    here = str(tmp_path)
    assert [m.model for m in moved.models] == [
        f"{here}/m",
        f"{here}/here",
        str(Path("~/x").expanduser()),
        f"{here}/a/b/c",
        "/data/d",
    ]
    assert [m.name for m in moved.models] == [m.name for m in spec.models]
    assert [b.name for b in moved.benchmarks] == ["gsm8k", f"{here}/tasks/own.yaml", "/t/other.yml"]
    assert moved.results == f"{here}/out"
    assert absolute_paths(moved) == moved


def test_hub_ids_and_uris_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = load_spec(
        {"name": "n", "models": ["org/model", "s3://b/m"], "benchmarks": ["mmlu"], "results": "s3://b/results"}
    )
    assert absolute_paths(spec) == spec


class Somewhere:
    """A path as other libraries have them."""

    def __fspath__(self) -> str:
        return "/data/m"


def test_paths_are_taken_as_their_text_wherever_they_stand() -> None:
    given = {
        "name": "x",
        "models": [
            Path("/data/m"),
            {"model": Path("/data/n"), "vllm": {"download_dir": Path("/d"), "hf_overrides": {"a": [Path("b")]}}},
        ],
        "benchmarks": [Path("own/a.yaml"), {"name": Path("b.yml"), "num_fewshot": 1}],
        "results": Path("/data/r"),
        "datasets": {"mirror": Path("/data/mirror")},
        "policy": {"spool": Path("/data/spool")},
    }
    spec = load_spec(given)
    assert [model.model for model in spec.models] == ["/data/m", "/data/n"]
    assert [model.name for model in spec.models] == ["m", "n"]
    assert spec.models[1].vllm == {"download_dir": "/d", "hf_overrides": {"a": ["b"]}}
    assert [each.name for each in spec.benchmarks] == ["own/a.yaml", "b.yml"]
    assert (spec.results, spec.datasets.mirror, spec.policy.spool) == ("/data/r", "/data/mirror", "/data/spool")
    assert load_spec(json.loads(spec.model_dump_json())) == spec
    assert ModelSpec.model_validate({"model": Somewhere()}).name == "m"
    assert (
        load_spec({"name": "x", "models": [Somewhere()], "benchmarks": ["steelyard_facts"]}).models[0].model
        == "/data/m"
    )


@pytest.mark.parametrize("field", ["results", "model", "mirror"])
def test_a_uri_that_was_made_a_path_is_told(field: str) -> None:
    uri = Path("s3://bucket/prefix")
    given = {"models": [uri if field == "model" else "org/m"], "datasets": {"mirror": uri} if field == "mirror" else {}}
    results = {"results": uri} if field == "results" else {}
    with pytest.raises(UserError, match=rf"{field} = 's3:/bucket/prefix': .*write a URI as text"):
        load_spec({"name": "x", "benchmarks": ["steelyard_facts"], **given, **results})
