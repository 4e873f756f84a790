from pathlib import Path

import fsspec
import pytest

from core.checkpoint import read_checkpoint
from core.weights import fetch_weights
from tests.checkpoints import write_checkpoint


def test_a_directory_is_used_as_it_is(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    assert fetch_weights(read_checkpoint(str(folder))) == folder.resolve()


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
    local = fetch_weights(checkpoint)
    assert (local / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    filesystem.rm(f"{s3_root}/a", recursive=True)
    assert fetch_weights(checkpoint) == local
