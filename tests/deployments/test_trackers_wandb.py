"""Exports to Weights & Biases, through its own client offline, and the run files that it has written."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.results import Store, open_store
from tests.core.report.test_html import fill

wandb = pytest.importorskip("wandb", reason='there is no client of W&B: pip install "steelyard[wandb]"')

Run = Callable[..., tuple[int, str, str]]
SECRET = "a-secret-of-the-environment"
BLOCK = 32768  # bytes, of the LevelDB log that a run file is


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    store = open_store(str(tmp_path / "store"))
    fill(store)
    yield store
    wandb.teardown()  # it reads its variables once in a process


def records(path: Path) -> Iterator[Any]:
    """Read a run file: after its own 7 bytes, pieces with checksum, length and whether they begin, go on or end a record."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def run_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def test_a_model_is_a_run_with_config_summary_and_artifacts(steelyard: Run, store: Store, tmp_path: Path) -> None:
    code, said, err = steelyard("export", "--format", "wandb", "--store", store.uri, "--samples", "--project", "evals")
    assert (code, said.count("nightly/")) == (0, 2), err
    assert len(run_files(tmp_path)) == 2
    read = {
        next(each.run.display_name for each in records(path) if each.HasField("run")): path
        for path in run_files(tmp_path)
    }
    told = list(records(read["nightly/tiny"]))
    (run,) = (each.run for each in told if each.HasField("run"))
    assert (run.project, run.run_group, list(run.tags)) == ("evals", "nightly", ["nightly", "r1"])
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert (config["tensor_parallel"], config["version/vllm"], config["steelyard/run"]) == ("2", "0.32.0", "r1")
    summary = {
        update.key or "/".join(update.nested_key): json.loads(update.value_json)
        for each in told
        if each.HasField("summary")
        for update in each.summary.update
    }
    assert summary["gsm8k/exact_match/strict"] == pytest.approx(17.5 / 19)
    assert summary["gsm8k/cost"] == pytest.approx(0.008)
    files = {
        each.artifact.type: [entry.path for entry in each.artifact.manifest.contents]
        for each in told
        if each.HasField("artifact")
    }
    artifacts = [each.request.log_artifact.artifact for each in told if each.HasField("request")]
    files |= {each.type: [entry.path for entry in each.manifest.contents] for each in artifacts if each.type}
    assert files == {"samples": ["gsm8k.parquet"], "scores": ["scores.csv"]}


def test_the_same_again_has_the_same_run_id_and_the_same_artifacts(
    steelyard: Run, store: Store, tmp_path: Path
) -> None:
    for _ in range(2):
        code, _, err = steelyard("export", "--format", "wandb", "--store", store.uri, "--model", "tiny", "--samples")
        assert code == 0, err
    before, after = (list(records(path)) for path in run_files(tmp_path))
    runs = [next(each.run for each in told if each.HasField("run")) for told in (before, after)]
    assert runs[0].run_id == runs[1].run_id
    digests = [{each.artifact.digest for each in told if each.HasField("artifact")} for told in (before, after)]
    assert digests[0] == digests[1] != set()
    assert not any(each.HasField("history") for each in (*before, *after))


def test_nothing_of_this_machine_goes_out(steelyard: Run, store: Store, tmp_path: Path) -> None:
    (run,) = store.campaigns("nightly")
    store.write_campaign({**run, "failures": {"tiny": f"it died of {SECRET}"}})
    steelyard("export", "--format", "wandb", "--store", store.uri)
    for path in run_files(tmp_path):
        assert SECRET.encode() not in path.read_bytes()
        assert not any(each.HasField("environment") for each in records(path))
        assert [each.name for each in (path.parent / "files").iterdir()] == []


def test_a_client_without_a_key_is_one_line(steelyard: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    code, _, err = steelyard("export", "--format", "wandb", "--store", store.uri)
    assert (code, "see WANDB_API_KEY" in err) == (2, True), err
