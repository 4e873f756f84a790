"""Mirrors of hub datasets: plain files or save_to_disk's, in a directory or on S3, at the pinned revision."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from core.benchmark.datasets.call import DatasetCall, call_of
from core.benchmark.datasets.mirror import Mirror, locate
from core.benchmark.needed import faults, fetch, statuses
from core.campaign import BenchmarkSpec
from core.errors import UserError
from tests.core.benchmark.gsm8k_repository import GSM8K, load, offline, real_data, repository, write_files
from tests.core.tasks.rows import DATA


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror that holds GSM8K as plain files."""
    monkeypatch.setenv("STEELYARD_CACHE", str(tmp_path / "cache"))
    write_files(tmp_path / "mirror" / "openai--gsm8k", repository())
    return tmp_path / "mirror"


@real_data
def test_a_catalogue_task_reads_its_rows_from_plain_files_of_a_mirror(mirror: Path) -> None:
    benchmark = load(GSM8K, offline(mirror))
    first = json.loads((DATA / "gsm8k_test.jsonl").read_text().splitlines()[0])
    assert first["question"] in getattr(benchmark.requests()[0], "prompt", "")
    (loaded,) = benchmark.datasets
    assert (loaded.dataset, loaded.config, loaded.place) == ("openai/gsm8k", "main", str(mirror))


@real_data
def test_what_save_to_disk_wrote_is_the_same_cell_as_the_files(mirror: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert fetch([GSM8K], offline(mirror), str(other)) == []
    assert (other / "openai--gsm8k" / "main" / "dataset_dict.json").is_file()
    copied = load(GSM8K, offline(other))
    assert copied.datasets[0].place == str(other)
    assert copied.settings == load(GSM8K, offline(mirror)).settings


@real_data
@pytest.mark.s3
@pytest.mark.parametrize("saved", [False, True])
def test_a_mirror_on_s3_is_copied_once_and_gives_the_same_cell(
    mirror: Path, s3_root: str, tmp_path: Path, saved: bool
) -> None:
    uri = f"{s3_root}/mirror"
    if saved:
        assert fetch([GSM8K], offline(mirror), uri) == []
    else:
        fsspec.filesystem("s3", skip_instance_cache=True).put(f"{mirror}/", f"{uri}/", recursive=True)
    assert [each.place for each in statuses([GSM8K], offline(uri))] == ["mirror"]
    assert load(GSM8K, offline(uri)).settings == load(GSM8K, offline(mirror)).settings
    copies = list((tmp_path / "cache" / "datasets").iterdir())
    assert len(copies) == 1
    before = {path: path.stat().st_mtime_ns for path in copies[0].rglob("*") if path.is_file()}
    load(GSM8K, offline(uri))
    assert before == {path: path.stat().st_mtime_ns for path in copies[0].rglob("*") if path.is_file()}


@pytest.mark.s3
def test_a_bucket_that_is_not_there_is_named(s3_root: str) -> None:
    with pytest.raises(UserError, match="mirror 's3://no-such-bucket/m': there is no such bucket"):
        Mirror("s3://no-such-bucket/m").find(DatasetCall("openai/gsm8k", "main"))
    assert "there is no such bucket" in faults([GSM8K], offline("s3://no-such-bucket/m"))[0]


@real_data
def test_a_pin_is_answered_by_its_own_folder_only(mirror: Path) -> None:
    pinned = GSM8K.model_copy(update={"dataset_revision": "v2"})
    (fault,) = faults([pinned], offline(mirror))
    assert "holds openai/gsm8k at an unknown revision, not at v2" in fault
    with pytest.raises(UserError, match="not at v2"):
        load(pinned, offline(mirror))
    write_files(mirror / "openai--gsm8k@v2", repository(first=100))
    assert faults([pinned], offline(mirror)) == []
    later = load(pinned, offline(mirror))
    assert later.datasets[0].revision == "v2"
    assert later.settings != load(GSM8K, offline(mirror)).settings


def test_a_mirror_that_is_not_there_is_named(tmp_path: Path) -> None:
    (fault,) = faults([GSM8K], offline(tmp_path / "gone"))
    assert "gone': there is no such directory; correct datasets.mirror" in fault


def test_what_chooses_rows_has_a_folder_of_its_own_in_a_mirror() -> None:
    plain = call_of({"path": "org/name", "name": "main"})
    assert plain.entry == "main"
    assert call_of({"path": "org/name", "name": "main", "num_proc": 4, "trust_remote_code": True}).entry == "main"
    others = [{"split": "test"}, {"data_files": "a.parquet"}, {"data_dir": "a"}]
    entries = {call_of({"path": "org/name", "name": "main", **other}).entry for other in others}
    assert len(entries | {"main"}) == 4
    remote = call_of({"path": "json", "data_files": {"test": "hf://datasets/org/name@v1/a.jsonl"}})
    assert (remote.repository, remote.kind) == ("org/name", "files")
    assert call_of({"path": "json", "data_files": {"test": "a.jsonl"}}).repository is None


def test_a_mirror_s_folder_is_saved_entries_or_plain_files() -> None:
    call = DatasetCall("org/name", "main")
    saved = ["main/dataset_dict.json", "main/test/state.json", "main/test/data.arrow"]
    assert locate(saved, call) == ("main", True)
    assert locate(saved, DatasetCall("org/name", "other")) is None
    assert locate(["dataset_dict.json", "test/state.json"], DatasetCall("org/name")) == (".", True)
    assert locate(["README.md", "data/a.parquet"], call) == (".", False)
    assert locate([], call) is None


@real_data
def test_files_that_a_task_names_by_hub_url_come_from_the_mirror(mirror: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "task: own\ndataset_path: json\ntest_split: test\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\n"
        "dataset_kwargs: {data_files: {test: 'hf://datasets/openai/gsm8k/main/test-0.jsonl'}}\n"
    )
    spec = BenchmarkSpec(name=str(path), limit=2)
    assert faults([spec], offline(mirror)) == []
    benchmark = load(spec, offline(mirror))
    assert (benchmark.docs, benchmark.datasets[0].place) == (2, str(mirror))
    assert "cannot be had" in faults([spec], offline(None))[0]
