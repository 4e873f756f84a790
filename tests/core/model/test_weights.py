"""Weights on local disk, or streamed from a real S3 server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import psutil
import pytest
from huggingface_hub.utils import filter_repo_objects
from safetensors import SafetensorError
from safetensors.numpy import load_file

from core.errors import UserError
from core.model import weights
from core.model.checkpoint import Checkpoint, read_checkpoint
from core.model.weights import (
    COPIED_TO_WORKERS,
    check_streamable,
    check_unchanged,
    fetch_checkpoint,
    has_weights,
    hub_patterns,
    read_ahead,
    streaming_environment,
)
from tests.checkpoints import write_checkpoint


def test_a_directory_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path / "a")
    assert fetch_checkpoint(read_checkpoint(str(folder))) == folder.resolve()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch_checkpoint(read_checkpoint("~/a")) == folder.resolve()


@pytest.mark.s3
def test_an_s3_checkpoint_is_read_by_its_headers_and_fetched_once(
    tmp_path: Path, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path / "a")
    filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
    filesystem.put(f"{folder}/", f"{s3_root}/a/", recursive=True)
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))
    checkpoint = read_checkpoint(f"{s3_root}/a")
    assert checkpoint.parameters == read_checkpoint(str(folder)).parameters
    local = fetch_checkpoint(checkpoint)
    assert (local / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    filesystem.rm(f"{s3_root}/a", recursive=True)
    assert fetch_checkpoint(checkpoint) == local


@pytest.mark.s3
def test_of_an_s3_checkpoint_one_fetches_and_without_weights_little_is(
    tmp_path: Path, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path / "a")
    fsspec.filesystem("s3", skip_instance_cache=True).put(f"{folder}/", f"{s3_root}/a/", recursive=True)
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))
    checkpoint = read_checkpoint(f"{s3_root}/a")
    bare = fetch_checkpoint(checkpoint, weights=False)
    assert {path.name for path in bare.iterdir()} == {"config.json", "tokenizer.json", "model.safetensors"}
    header = (bare / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes().startswith(header)
    assert set(json.loads(header[8:])) == {"model.embed_tokens.weight"}
    with pytest.raises(SafetensorError):
        load_file(bare / "model.safetensors")
    names = checkpoint.weight_files
    assert (has_weights(str(bare), names), has_weights(str(folder), names), has_weights("/none", names)) == (
        False,
        True,
        False,
    )
    assert not has_weights(str(folder), ["other.safetensors"])
    made: list[str] = []
    download = weights._download

    def counted(checkpoint: Checkpoint, folder: Path, *, weights: bool) -> None:
        made.append(checkpoint.source)
        download(checkpoint, folder, weights=weights)

    monkeypatch.setattr(weights, "_download", counted)
    with ThreadPoolExecutor(4) as pool:
        (whole,) = set(pool.map(lambda _: fetch_checkpoint(checkpoint), range(4)))
    assert len(made) == 1
    assert (whole / "model.safetensors").is_file()
    assert fetch_checkpoint(checkpoint, weights=False) == bare


NAMES = (
    "config.json",
    "params.json",
    "tekken.json",
    "tokenizer.model.v7",
    "model.safetensors",
    "consolidated.safetensors",
    "pytorch_model.bin",
    "model.gguf",
    "original/consolidated.00.pth",
    "original/params.json",
    "encoder/model.safetensors",
)


def test_of_the_hub_the_files_that_vllm_loads_are_fetched(tmp_path: Path) -> None:
    checkpoint = replace(
        read_checkpoint(str(write_checkpoint(tmp_path / "a"))), weight_files=("consolidated.safetensors",)
    )
    small = [*NAMES[:4], "original/params.json"]
    assert list(filter_repo_objects(NAMES, allow_patterns=hub_patterns(checkpoint, weights=False))) == small
    whole = set(filter_repo_objects(NAMES, allow_patterns=hub_patterns(checkpoint, weights=True)))
    assert whole == {*small, "consolidated.safetensors", "encoder/model.safetensors"}


@pytest.mark.s3
def test_of_s3_the_files_that_vllm_loads_are_fetched(
    tmp_path: Path, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path / "a")
    weights = (folder / "model.safetensors").read_bytes()
    for name in NAMES[1:]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(weights)
    for name in ("params.json", "tekken.json"):
        (folder / name).write_text("{}")
    put(folder, f"{s3_root}/a")
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))
    checkpoint = read_checkpoint(f"{s3_root}/a")
    local = fetch_checkpoint(checkpoint)
    found = {
        path.relative_to(local).as_posix()
        for path in local.rglob("*.*")
        if path.suffix in (".safetensors", ".bin", ".gguf")
    }
    assert found == {"consolidated.safetensors", "encoder/model.safetensors"}
    assert has_weights(str(local), checkpoint.weight_files)
    bare = fetch_checkpoint(checkpoint, weights=False)
    assert [path.name for path in bare.rglob("*.safetensors")] == ["consolidated.safetensors"]


def test_weights_are_read_ahead_where_memory_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path / "a")
    files = [folder / "model.safetensors", folder / "none.safetensors"]
    size = files[0].stat().st_size
    assert read_ahead(files) == size
    assert read_ahead([]) == 0
    scarce = psutil.virtual_memory()._replace(available=2 * size - 2)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: scarce)
    assert read_ahead(files) == 0


def put(folder: Path, uri: str) -> None:
    fsspec.filesystem("s3", skip_instance_cache=True).put(f"{folder}/", f"{uri}/", recursive=True)


@pytest.mark.s3
def test_weights_that_vllm_would_not_load_from_a_disk_are_not_streamed(tmp_path: Path, s3_root: str) -> None:
    folder = write_checkpoint(tmp_path / "a")
    put(folder, f"{s3_root}/a")
    check_streamable(read_checkpoint(f"{s3_root}/a"))
    (folder / "consolidated.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    put(folder, f"{s3_root}/b")
    words = (
        r"stream_weights: vLLM would stream consolidated.safetensors, model.safetensors, and from a disk it loads "
        r"consolidated.safetensors: move 'model.safetensors' elsewhere"
    )
    with pytest.raises(UserError, match=words):
        check_streamable(read_checkpoint(f"{s3_root}/b"))


@pytest.mark.s3
def test_a_checkpoint_that_was_written_to_is_not_the_one_planned_with(tmp_path: Path, s3_root: str) -> None:
    put(write_checkpoint(tmp_path / "a"), f"{s3_root}/a")
    planned = read_checkpoint(f"{s3_root}/a")
    check_unchanged(planned)
    put(write_checkpoint(tmp_path / "b", seed=1), f"{s3_root}/a")
    with pytest.raises(UserError, match="was written to since the campaign was planned"):
        check_unchanged(planned)


@pytest.mark.s3
def test_what_was_written_to_since_is_not_kept_as_what_was_planned(
    tmp_path: Path, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))
    put(write_checkpoint(tmp_path / "a"), f"{s3_root}/a")
    planned = read_checkpoint(f"{s3_root}/a")
    put(write_checkpoint(tmp_path / "b", seed=1), f"{s3_root}/a")
    for whole in (True, False):
        with pytest.raises(UserError, match="was written to since the campaign was planned"):
            fetch_checkpoint(planned, weights=whole)
    assert [path.name for path in (tmp_path / "cache" / "checkpoints").iterdir() if path.is_dir()] == []
    put(tmp_path / "a", f"{s3_root}/a")
    assert fetch_checkpoint(planned, weights=False).is_dir()


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, {}),
        ({"AWS_ENDPOINT_URL": "http://a"}, {"AWS_ENDPOINT_URL": "http://a"}),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}, {"AWS_ENDPOINT_URL": "http://b"}),
    ],
)
def test_the_streamer_finds_the_server_of_the_aws_variables(environment: dict[str, str], found: dict[str, str]) -> None:
    made = streaming_environment({**environment, COPIED_TO_WORKERS: "MINE"})
    copied = made.pop(COPIED_TO_WORKERS, "MINE").split(",")
    path_style = {"RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0"} if found else {}
    assert made == {**found, **path_style}
    assert set(copied) == {"MINE", *made}
