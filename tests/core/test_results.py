"""The store in a local directory: what is complete, what is adopted, what is refused."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.errors import StoreError
from core.results import FILES_AT_ONCE, Store, new_run_id, open_store
from core.sample import Score
from tests.core.store_parts import METADATA, make_cell, make_responses, make_scoring


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "results"))


def files(store: Store) -> set[str]:
    return {path.relative_to(store.uri).as_posix() for path in Path(store.uri).rglob("*") if path.is_file()}


def test_check_makes_a_missing_directory_and_leaves_nothing_in_it(store: Store) -> None:
    store.check()
    assert Path(store.uri).is_dir()
    assert files(store) == set()


def test_a_directory_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match=r"^results '.*taken': cannot write .*: \w[^\n]*$"):
        open_store(str(tmp_path / "taken")).check()


def test_responses_come_back_as_they_went_in(store: Store) -> None:
    with store.writer("a" * 64, rows=2) as writer:
        for response in make_responses():
            writer.add(response)
    assert store.responses("a" * 64) == {response.id: response for response in make_responses()}


def test_responses_are_stored_when_an_exception_passes(store: Store) -> None:
    def engine_dies() -> None:
        with store.writer("a" * 64) as writer:
            writer.add(make_responses()[0])
            raise KeyError("engine")

    with pytest.raises(KeyError, match="engine"):
        engine_dies()
    assert list(store.responses("a" * 64)) == ["g0"]


def test_an_answer_wins_over_an_error_for_the_same_request(store: Store) -> None:
    good = make_responses(1)[0]
    for response in (good, replace(good, error="too long"), good, replace(good, error="too long")):
        with store.writer("a" * 64) as writer:
            writer.add(response)
    assert store.responses("a" * 64) == {good.id: good}


@pytest.mark.parametrize("junk", [b"PAR1 torn", b""])
def test_a_foreign_shard_is_warned_about_and_stepped_over(
    store: Store, caplog: pytest.LogCaptureFixture, junk: bytes
) -> None:
    with store.writer("a" * 64) as writer:
        writer.add(make_responses()[0])
    (Path(store.uri) / "responses" / f"cell={'a' * 64}" / "foreign.parquet").write_bytes(junk)
    with caplog.at_level(logging.WARNING, "steelyard"):
        assert list(store.responses("a" * 64)) == ["g0"]
    assert "foreign.parquet is not used" in caplog.text


def test_a_cell_is_complete_from_its_commit_on_and_its_shards_are_gone(store: Store) -> None:
    cell = make_cell()
    with store.writer(cell.fingerprint) as writer:
        writer.add(make_responses()[0])
    assert not store.is_complete(cell.fingerprint)
    assert store.commit(cell, make_scoring(), METADATA)
    assert store.is_complete(cell.fingerprint)
    assert files(store) == {
        f"cells/{cell.fingerprint}.json",
        f"samples/benchmark=gsm8k/model=tiny/{cell.fingerprint}.parquet",
        f"scores/benchmark=gsm8k/model=tiny/{cell.fingerprint}.parquet",
    }


def test_the_commit_record_says_what_was_written(store: Store) -> None:
    cell = make_cell()
    store.commit(cell, make_scoring(), METADATA)
    record = store.commit_record(cell.fingerprint)
    assert record is not None
    assert (record["settings"], record["metadata"]) == (cell.settings, METADATA)
    assert [entry["rows"] for entry in record["files"]] == [3, 1]
    assert [entry["bytes"] for entry in record["files"]] == [
        (Path(store.uri) / entry["path"]).stat().st_size for entry in record["files"]
    ]


def test_a_second_commit_changes_nothing(store: Store) -> None:
    store.commit(make_cell(), make_scoring(), METADATA)
    before = {path: (Path(store.uri) / path).read_bytes() for path in files(store)}
    assert not store.commit(make_cell(model="other-name"), make_scoring(value=0.0), METADATA)
    assert {path: (Path(store.uri) / path).read_bytes() for path in files(store)} == before


def test_samples_without_a_record_are_adopted_with_their_own_scores(store: Store) -> None:
    cell = make_cell()
    store.commit(cell, make_scoring(value=0.25), METADATA)
    (Path(store.uri) / "cells" / f"{cell.fingerprint}.json").unlink()
    (Path(store.uri) / f"scores/benchmark=gsm8k/model=tiny/{cell.fingerprint}.parquet").unlink()
    assert store.commit(
        replace(cell, settings={"revision": "a-tag"}), make_scoring(value=1.0), {"engine": "lightweight"}
    )
    assert store.samples()["value"].unique().tolist() == [0.25]
    assert store.scores()[["value", "revision"]].to_numpy().tolist() == [[0.25, "main"]]
    assert store.leaderboard()[["score", "engine"]].to_numpy().tolist() == [[0.25, "distributed"]]


@pytest.mark.parametrize("found", ["torn", "other docs"])
def test_a_samples_file_that_is_not_the_cells_is_reported_and_replaced(
    store: Store, caplog: pytest.LogCaptureFixture, found: str
) -> None:
    cell = make_cell()
    path = Path(store.uri) / f"samples/benchmark=gsm8k/model=tiny/{cell.fingerprint}.parquet"
    store.commit(cell, make_scoring(docs=2), METADATA)
    (Path(store.uri) / "cells" / f"{cell.fingerprint}.json").unlink()
    if found == "torn":
        path.write_bytes(path.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING, "steelyard"):
        assert store.commit(cell, make_scoring(docs=3), METADATA)
    assert f"{cell.fingerprint}.parquet was there without a commit record and is replaced" in caplog.text
    assert len(store.samples()) == 3


def test_samples_of_a_loser_under_another_name_go_with_the_next_commit(store: Store) -> None:
    store.commit(make_cell(model="loser"), make_scoring(), METADATA)
    (Path(store.uri) / "cells" / f"{'a' * 64}.json").unlink()
    assert store.commit(make_cell(model="winner"), make_scoring(), METADATA)
    assert not any("model=loser" in path for path in files(store))


def test_a_file_changed_after_its_commit_is_not_read(store: Store) -> None:
    cell = make_cell()
    store.commit(cell, make_scoring(), METADATA)
    (Path(store.uri) / f"samples/benchmark=gsm8k/model=tiny/{cell.fingerprint}.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="is not the file its cell was committed with: delete cells/"):
        store.samples()


def test_a_broken_commit_record_is_named(store: Store) -> None:
    store.commit(make_cell(), make_scoring(), METADATA)
    (Path(store.uri) / "cells" / f"{'a' * 64}.json").write_text("{")
    with pytest.raises(StoreError, match=f"cells/{'a' * 64}.json is no commit record: delete it"):
        store.is_complete("a" * 64)


def test_a_record_of_another_schema_version_is_refused(store: Store) -> None:
    store.commit(make_cell(), make_scoring(), METADATA)
    path = Path(store.uri) / "cells" / f"{'a' * 64}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": "99"}))
    with pytest.raises(StoreError, match="schema version '99'"):
        store.is_complete("a" * 64)


def test_a_fingerprint_cannot_leave_the_store(store: Store) -> None:
    with pytest.raises(StoreError, match="64 hex digits"):
        store.is_complete("../../etc/passwd")


def test_sample_files_hold_no_second_benchmark_or_model(store: Store) -> None:
    store.commit(make_cell(), make_scoring(), METADATA)
    (path,) = (Path(store.uri) / "samples").rglob("*.parquet")
    columns = pq.ParquetFile(path).schema_arrow.names
    assert {"benchmark", "model"}.isdisjoint(columns)
    assert {"fingerprint", "checkpoint", "revision", "dtype"} <= set(columns)


def test_samples_are_read_with_maps_as_dicts(store: Store) -> None:
    store.commit(make_cell(), make_scoring(), METADATA)
    row = store.samples().iloc[0]
    assert (row["filtered"], row["metrics"]) == ({"none": "4"}, {"acc,none": 1.0})
    assert (row["model"], row["benchmark"], list(row["logprobs"])) == ("tiny", "gsm8k", [-0.5, -1.5])


def test_a_value_that_is_no_number_is_null_in_the_record(store: Store) -> None:
    scoring = make_scoring()
    nowhere = Score("gsm8k", "perplexity", "none", float("inf"), None, 3, higher_is_better=False, primary=True)
    store.commit(make_cell(), replace(scoring, scores=(nowhere,), headline=nowhere), METADATA)
    assert "Infinity" not in (Path(store.uri) / "cells" / f"{'a' * 64}.json").read_text()
    assert store.scores()["value"].tolist() == [float("inf")]


def test_an_empty_store_has_an_empty_leaderboard(store: Store) -> None:
    assert store.leaderboard().empty
    assert store.samples().empty


def campaign_of(store: Store, name: str, run: str, model: str, cells: dict[str, str]) -> None:
    store.write_model_run(name, run, {"model": model, "cells": cells})


def test_the_leaderboard_takes_names_from_the_campaign_and_speed_from_the_record(store: Store) -> None:
    store.commit(make_cell(), make_scoring(), METADATA)
    campaign_of(store, "nightly", "1", "my-name", {"gsm8k-again": "a" * 64})
    (row,) = store.leaderboard("nightly").to_dict("records")
    assert (row["model"], row["benchmark"], row["campaign"]) == ("my-name", "gsm8k-again", "nightly")
    assert (row["score"], row["stderr"], row["docs"], row["tokens_per_second"]) == (1.0, 0.1, 3, 100.0)
    assert (row["engine"], row["tensor_parallel"], row["reason"]) == ("distributed", 2, "weights of 35 GB exceed 30 GB")


def test_only_the_newest_run_of_a_campaign_counts(store: Store) -> None:
    for fingerprint in "ab":
        store.commit(make_cell(fingerprint, benchmark=f"bench-{fingerprint}"), make_scoring(), METADATA)
    campaign_of(store, "nightly", "1", "tiny", {"bench-a": "a" * 64})
    campaign_of(store, "nightly", "2", "tiny", {"bench-b": "b" * 64})
    assert store.leaderboard("nightly")["benchmark"].tolist() == ["bench-b"]


def test_the_whole_leaderboard_lists_a_cell_once_and_those_no_run_names(store: Store) -> None:
    for fingerprint in "ab":
        store.commit(make_cell(fingerprint, benchmark=f"bench-{fingerprint}"), make_scoring(), METADATA)
    campaign_of(store, "nightly", "1", "tiny", {"bench-a": "a" * 64})
    campaign_of(store, "weekly", "2", "tiny", {"bench-a": "a" * 64, "never-run": "c" * 64})
    assert sorted(store.leaderboard()["benchmark"]) == ["bench-a", "bench-b"]


def test_an_unknown_campaign_is_named_with_the_nearest(store: Store) -> None:
    campaign_of(store, "nightly", "1", "tiny", {})
    with pytest.raises(StoreError, match="no campaign 'nightl' — did you mean 'nightly'"):
        store.leaderboard("nightl")


def test_a_manifest_joins_what_its_models_wrote(store: Store) -> None:
    campaign_of(store, "nightly", "1", "tiny", {"gsm8k": "a" * 64})
    store.write_campaign({"campaign": "nightly", "run": "1", "failures": {"big": "out of memory"}})
    (run,) = store.campaigns()
    assert run["failures"] == {"big": "out of memory"}
    assert [model["cells"] for model in run["models"]] == [{"gsm8k": "a" * 64}]


def test_run_ids_sort_by_time() -> None:
    ids = [new_run_id() for _ in range(20)]
    assert sorted(ids) == ids


def test_samples_are_read_without_what_is_not_asked_for(store: Store) -> None:
    store.commit(make_cell(), make_scoring(), METADATA)
    store.commit(make_cell("b", benchmark="mmlu"), make_scoring(), METADATA)
    frame = store.samples(columns=["value", "doc_id"], benchmarks={"mmlu"})
    assert set(frame.columns) == {"benchmark", "model", "doc_id", "value"}
    assert frame["benchmark"].unique().tolist() == ["mmlu"]
    assert frame["value"].tolist() == store.samples()["value"].tolist()[:3]
    assert set(store.samples(columns=["value"], benchmarks=set()).columns) == {"benchmark", "model", "value"}


def test_a_column_that_samples_have_not_is_named(store: Store) -> None:
    with pytest.raises(StoreError, match="samples have no column 'valeu' — did you mean 'value'"):
        store.samples(columns=["valeu"])


def test_more_cells_than_are_read_at_once_are_all_read(store: Store) -> None:
    for number in range(FILES_AT_ONCE + 1):
        cell = replace(make_cell(model=f"m{number}"), fingerprint=f"{number:064x}")
        store.commit(cell, make_scoring(docs=1, value=float(number)), METADATA)
    frame = store.samples(columns=["value"])
    assert dict(zip(frame["model"], frame["value"], strict=True)) == {f"m{n}": n for n in range(FILES_AT_ONCE + 1)}


def test_a_score_with_other_few_shot_examples_or_fewer_docs_says_so(tmp_path: Path) -> None:
    store = open_store(tmp_path)  # text or a path
    cell = make_cell()
    cell = replace(cell, settings={**cell.settings, "benchmark": {"fewshot_sampler": "first_n"}})
    store.commit(cell, make_scoring(), {"adaptive": {"docs": 3, "of": 9}})
    (notes,) = store.leaderboard().notes
    assert notes == "the same few-shot examples for every doc (first_n); ended after 3 of 9 docs"
