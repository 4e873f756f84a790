import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import psutil
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file

from core.model import weights
from core.model.checkpoint import read_checkpoint
from core.model.weights import fetch_checkpoint, has_weights, read_ahead
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
    assert (has_weights(str(bare)), has_weights(str(folder)), has_weights("/none")) == (False, True, False)
    made: list[str] = []
    download = weights._download

    def counted(uri: str, folder: Path, *, weights: bool) -> None:
        made.append(uri)
        download(uri, folder, weights=weights)

    monkeypatch.setattr(weights, "_download", counted)
    with ThreadPoolExecutor(4) as pool:
        (whole,) = set(pool.map(lambda _: fetch_checkpoint(checkpoint), range(4)))
    assert len(made) == 1
    assert (whole / "model.safetensors").is_file()
    assert fetch_checkpoint(checkpoint, weights=False) == bare


def test_weights_are_read_ahead_where_memory_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path / "a")
    size = (folder / "model.safetensors").stat().st_size
    assert read_ahead(folder) == size
    assert read_ahead(tmp_path) == 0
    scarce = psutil.virtual_memory()._replace(available=2 * size - 2)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: scarce)
    assert read_ahead(folder) == 0
