"""Datasets of a campaign: mirrors, pins, offline mode, and what cannot be had named before anything starts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.benchmark.benchmark import load_benchmark
from core.benchmark.datasets import route as hub
from core.benchmark.needed import faults, wanted
from core.campaign import BenchmarkSpec, CampaignSpec, DatasetsSpec, load_spec
from core.errors import UserError
from core.planning.plan import make_plan
from tests.checkpoints import write_checkpoint
from tests.core.benchmark.gsm8k_repository import GSM8K, offline, real_data, repository
from tests.hub_server import Hub, hub_server


def test_a_dataset_that_cannot_be_had_is_named_with_its_benchmarks_and_the_mend(tmp_path: Path) -> None:
    both = [GSM8K, BenchmarkSpec(name="gsm8k_cot"), BenchmarkSpec(name="steelyard_facts")]
    (fault,) = faults(both, offline(tmp_path))
    assert fault.startswith(
        "benchmark 'gsm8k', 'gsm8k_cot': dataset 'openai/gsm8k' cannot be had: datasets.offline is set"
    )
    assert "steelyard datasets fetch --to MIRROR" in fault
    (unset,) = faults(both[:1], DatasetsSpec())
    assert "the hub does not answer (HF_HUB_OFFLINE is set), and the cache on this machine does not hold it" in unset


def test_a_campaign_s_check_lists_every_dataset_that_is_missing(tmp_path: Path) -> None:
    spec = load_spec(
        {
            "name": "n",
            "models": [str(write_checkpoint(tmp_path / "m"))],
            "benchmarks": ["hellaswag", "steelyard_facts", "gsm8k"],
            "fleet": {"gpus": 1, "gpu_memory_gb": 8, "device": "cpu"},
        }
    )
    with pytest.raises(UserError) as caught:
        make_plan(spec)
    lines = str(caught.value).splitlines()
    assert [line.split("'")[1] for line in lines] == ["hellaswag", "gsm8k"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("dataset_path: json\ndataset_kwargs: {data_files: {test: gone/*.jsonl}}", "there is no file 'gone/*.jsonl'"),
        ("dataset_path: ./gone", "there is no folder './gone' here; correct dataset_path"),
    ],
)
def test_a_local_file_that_is_not_there_is_named(tmp_path: Path, fields: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"task: own\ntest_split: test\ndoc_to_text: a\ndoc_to_target: b\n{fields}\n")
    (fault,) = faults([BenchmarkSpec(name=str(path))], DatasetsSpec())
    assert f"own.yaml': line {5 + fields.count('dataset_kwargs')}: {message}" in fault


def test_a_split_that_a_dataset_lacks_is_told_with_those_that_it_has(tmp_path: Path) -> None:
    """Of datasets that plan does not look into: here those of a mirror."""
    from datasets import Dataset, DatasetDict

    path = tmp_path / "own.yaml"
    path.write_text("task: own\ndataset_path: org/rows\ntest_split: tset\ndoc_to_text: a\ndoc_to_target: b\n")
    DatasetDict({"test": Dataset.from_list([{"q": 1}])}).save_to_disk(tmp_path / "mirror" / "org--rows" / "default")
    (tmp_path / "mirror" / "org--rows" / "default" / "steelyard.json").write_text("{}")
    with pytest.raises(UserError, match="there is no split 'tset': its dataset gives 'test' — did you mean 'test'"):
        load_benchmark(
            BenchmarkSpec(name=str(path)), chat=None, seed=1, datasets=DatasetsSpec(mirror=str(tmp_path / "mirror"))
        )


@pytest.mark.parametrize("name", ["steelyard_facts", "leaderboard"])
def test_a_revision_needs_one_hub_dataset(name: str) -> None:
    with pytest.raises(UserError, match="dataset_revision = 'v1', but it has"):
        wanted(BenchmarkSpec(name=name, dataset_revision="v1"))
    assert {each.call.revision for each in wanted(BenchmarkSpec(name="mmlu", dataset_revision="v1")) if each.call} == {
        "v1"
    }


def test_a_task_s_own_revision_counts_and_the_campaign_s_goes_before_it() -> None:
    def revisions(**fields: Any) -> set[str | None]:
        return {each.call.revision for each in wanted(BenchmarkSpec(name="indicxnli_gu", **fields)) if each.call}

    assert revisions() == {"refs/convert/parquet"}
    assert revisions(dataset_revision="v9") == {"v9"}


def test_a_hub_that_is_silent_is_given_up_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, says nothing
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "_last", None)
        started = time.monotonic()
        found = faults([GSM8K, BenchmarkSpec(name="hellaswag")], DatasetsSpec())
        assert time.monotonic() - started < 4 * hub.PROBE_SECONDS
    monkeypatch.setattr(hub, "_last", None)
    assert len(found) == 2
    assert all("the hub does not answer (" in fault for fault in found)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Hub, Callable[..., subprocess.CompletedProcess[str]]]]:
    """A hub on loopback, and a command that runs Python with it, a cache of its own, and what the caller says of them."""
    with hub_server() as server:
        env = {
            **os.environ,
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
            "STEELYARD_CACHE": str(tmp_path / "cache"),
        }

        def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, *arguments], env=env | changes, capture_output=True, text=True, timeout=300
            )

        yield server, run


LOAD = """
import json, sys
from core.benchmark.benchmark import load_benchmark
from core.campaign import BenchmarkSpec, DatasetsSpec
from core.errors import UserError
for fields in json.loads(sys.argv[1]):
    datasets = DatasetsSpec(**fields.pop("datasets", {}))
    try:
        benchmark = load_benchmark(BenchmarkSpec(name="gsm8k", limit=4, **fields), chat=None, seed=3, datasets=datasets)
    except UserError as error:
        print(json.dumps({"error": str(error)}))
        continue
    (loaded,) = benchmark.datasets
    print(json.dumps({"revision": loaded.revision, "place": loaded.place, "rows": benchmark.settings["tasks"]["gsm8k"]["rows"]}))
"""


@real_data
def test_pins_are_kept_online_and_offline(
    served: tuple[Hub, Callable[..., subprocess.CompletedProcess[str]]],
) -> None:
    server, run = served
    first, second = server.push("openai/gsm8k", repository()), server.push("openai/gsm8k", repository(first=100))

    def loads(*fields: dict[str, Any], **changes: str) -> list[dict[str, str]]:
        done = run("-c", LOAD, json.dumps(fields), **changes)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    pinned = {"dataset_revision": first}
    newest, old = loads({}, pinned)
    assert (newest["revision"], old["revision"]) == (second, first)
    assert newest["rows"] != old["rows"]

    asked = len(server.asked)
    strict = {"datasets": {"offline": True}}
    latest, same, missing = loads(strict, pinned | strict, {"dataset_revision": "0" * 40} | strict)
    assert server.asked[asked:] == []
    assert same == {**old, "place": "cache"}
    assert latest["place"] == "cache"
    assert "datasets.offline is set, and the cache on this machine does not hold it" in missing["error"]
    (unreachable,) = loads(pinned, HF_ENDPOINT="http://127.0.0.1:9")
    assert unreachable == same


@real_data
def test_fetch_fills_a_mirror_that_another_machine_lives_on(
    served: tuple[Hub, Callable[..., subprocess.CompletedProcess[str]]], tmp_path: Path
) -> None:
    server, run = served
    commit = server.push("openai/gsm8k", repository())
    server.push("Idavidrein/gpqa", {})
    server.gated.add("Idavidrein/gpqa")
    campaign = tmp_path / "campaign.yaml"
    text = "name: n\nmodels: [org/m]\nbenchmarks: [gsm8k, gpqa_diamond_zeroshot, aime24, steelyard_facts]\n"
    campaign.write_text(text)
    command = ["-m", "deployments.cli", "datasets"]

    listed = run(*command, "list", str(campaign))
    assert listed.returncode == 1, listed.stderr
    lines = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert " hub " in lines["openai/gsm8k"]
    assert "it is gated: accept its terms on the hub and set HF_TOKEN" in lines["Idavidrein/gpqa"]
    assert "the hub has no such dataset" in lines["Maxwell-Jia/AIME_2024"]
    assert "not looked into" in lines["hooks.rows"]

    mirror = tmp_path / "mirror"
    fetched = run(*command, "fetch", str(campaign), "--to", str(mirror))
    assert fetched.returncode == 1
    assert f"gsm8k: openai/gsm8k main ({commit}) from hub" in fetched.stdout
    assert "gated" in fetched.stderr
    record = json.loads((mirror / "openai--gsm8k" / "main" / "steelyard.json").read_text())
    assert (record["dataset"], record["revision"]) == ("openai/gsm8k", commit)

    campaign.write_text(
        text.replace("gpqa_diamond_zeroshot, aime24, ", "") + f"datasets: {{mirror: {mirror}, offline: true}}\n"
    )
    elsewhere = run(*command, "list", str(campaign), HF_HOME=str(tmp_path / "empty"), HF_ENDPOINT="http://127.0.0.1:9")
    assert elsewhere.returncode == 0, elsewhere.stdout
    assert " mirror " in elsewhere.stdout


def test_the_spec_says_where_datasets_come_from(tmp_path: Path) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text("name: n\nmodels: [org/m]\nbenchmarks: [gsm8k]\ndatasets: {mirror: ./mirror, offline: true}\n")
    assert load_spec(path).datasets == DatasetsSpec(mirror=str(tmp_path / "mirror"), offline=True)
    for wrong in ("gs://bucket/x", "s3://", "s3:///"):
        with pytest.raises(UserError, match="datasets.mirror = .*(use|needs a bucket:) s3://bucket/prefix"):
            load_spec({"name": "n", "models": ["org/m"], "benchmarks": ["gsm8k"], "datasets": {"mirror": wrong}})
    assert isinstance(load_spec(path), CampaignSpec)
