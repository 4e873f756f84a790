"""The store on a real S3 server: races, resume, refusals, and the one-line readers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from core.errors import StoreError
from core.results import Store, open_store
from deployments.local_s3 import S3Server
from tests.core.store_parts import METADATA, make_cell, make_responses, make_scoring

pytestmark = pytest.mark.s3


@pytest.fixture
def store(s3_root: str) -> Store:
    return open_store(s3_root)


def files(root: str) -> list[str]:
    return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True).find(root)


def test_check_writes_and_leaves_nothing(store: Store) -> None:
    store.check()
    assert [path for path in files(store.uri) if path.count("/") > 1] == []


def test_of_racing_commits_one_wins_and_all_read_its_rows(s3_root: str) -> None:
    racers = 6
    start = threading.Barrier(racers)

    def race(number: int) -> bool:
        cell, scoring = make_cell(model=f"name-{number % 2}"), make_scoring(value=float(number))
        store = open_store(s3_root)
        start.wait()
        return store.commit(cell, scoring, {**METADATA, "seconds": float(number + 1)})

    with ThreadPoolExecutor(racers) as pool:
        won = list(pool.map(race, range(racers)))
    assert sum(won) == 1
    store = open_store(s3_root)
    assert len(store.samples()) == 3
    (value,) = store.samples()["value"].unique()
    assert store.scores()["value"].tolist() == [value]
    assert store.leaderboard()[["score", "seconds"]].to_numpy().tolist() == [[value, value + 1]]
    assert len(pd.read_parquet(f"{s3_root}/samples")) == 3


def test_several_cells_are_written_at_once_through_one_store(store: Store) -> None:
    def write(fingerprint: str) -> None:
        with store.writer(fingerprint * 64, rows=1) as writer:
            for response in make_responses():
                writer.add(response)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    wanted = {response.id: response for response in make_responses()}
    assert [store.responses(fingerprint * 64) for fingerprint in "abcd"] == [wanted] * 4


def test_a_run_resumes_after_a_writer_that_raised(store: Store) -> None:
    def engine_dies() -> None:
        with store.writer("a" * 64) as writer:
            writer.add(make_responses()[0])
            raise KeyError("engine")

    with pytest.raises(KeyError, match="engine"):
        engine_dies()
    with store.writer("a" * 64) as writer:
        for response in make_responses()[1:]:
            writer.add(response)
    assert store.responses("a" * 64) == {response.id: response for response in make_responses()}
    assert store.commit(make_cell(), make_scoring(), METADATA)
    assert not any("responses" in path for path in files(store.uri))


def test_a_foreign_object_among_the_shards_is_stepped_over_and_stays(store: Store) -> None:
    foreign = f"{store.uri}/responses/cell={'a' * 64}/foreign.parquet"
    fsspec.filesystem("s3").pipe_file(foreign, b"not Parquet")
    with store.writer("a" * 64) as writer:
        writer.add(make_responses()[0])
    assert list(store.responses("a" * 64)) == ["g0"]
    store.commit(make_cell(), make_scoring(), METADATA)
    assert foreign.removeprefix("s3://") in files(store.uri)


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_refused_without_showing_it(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "not-the-right-one")
    with pytest.raises(StoreError, match="refuses the credentials") as caught:
        open_store(s3_root).check()
    assert "not-the-right-one" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_key_at_all_is_named(s3_root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="no S3 credentials: set AWS_ACCESS_KEY_ID"):
        open_store(s3_root).check()


def test_a_key_that_may_only_read_is_refused(
    s3_root: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.env_of(s3_server.read_only).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match="not allowed"):
        open_store(s3_root).check()


@pytest.mark.timeout(60)
def test_an_unreachable_server_is_named(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:9 does not answer"):
        open_store(s3_root).check()


@pytest.mark.usefixtures("s3_root")
def test_a_missing_bucket_is_named() -> None:
    with pytest.raises(StoreError, match="bucket 'no-such-bucket' does not exist"):
        open_store("s3://no-such-bucket/x").check()


LABELS = ["gsm8k", "odd/label %", "2024"]


@pytest.fixture
def filled(store: Store) -> Store:
    for fingerprint, label in zip("abc", LABELS, strict=True):
        store.commit(make_cell(fingerprint, benchmark=label), make_scoring(task=label), METADATA)
    return store


def rows_of(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    names = ["benchmark", "model", "fingerprint", "task", "doc_id", "value", "prompt"]
    return sorted(frame[names].astype({"benchmark": str, "model": str}).itertuples(index=False, name=None))


def test_pandas_pyarrow_and_duckdb_read_the_rows_in_one_line(filled: Store) -> None:
    wanted = rows_of(filled.samples())
    root = filled.uri
    connection = duckdb.connect()
    s3 = fsspec.filesystem("s3")
    connection.register_filesystem(s3)
    query = f"select * from read_parquet('{root}/samples/**/*.parquet', hive_partitioning=true)"
    assert len(wanted) == 9
    assert rows_of(pd.read_parquet(f"{root}/samples")) == wanted
    assert rows_of(pq.read_table(f"{root}/samples").to_pandas()) == wanted
    dataset = ds.dataset(f"{root}/samples".removeprefix("s3://"), filesystem=s3, partitioning="hive")
    assert rows_of(dataset.to_table().to_pandas()) == wanted
    assert rows_of(connection.sql(query).df()) == wanted


def test_scores_are_read_in_one_line_too(filled: Store) -> None:
    frame = pd.read_parquet(f"{filled.uri}/scores")
    assert sorted(frame[frame["is_headline"]]["benchmark"]) == sorted(LABELS)
