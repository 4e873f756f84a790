"""Commands about a results store, in process: what they say, and what they change only when told to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.results import Store, open_store
from core.storage.open import open_storage
from core.store.lease import Lessee
from tests.core.store_parts import METADATA, make_cell, make_responses, make_scoring

Steelyard = Callable[..., tuple[int, str, str]]
QUALITY: dict[str, Any] = {**METADATA, "quality": {"docs": 3, "failed": 1}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two models on two benchmarks: a complete, b complete but for one doc, c begun, d computed at the moment; poor failed."""
    store = open_store(str(tmp_path / "store"))
    store.commit(make_cell("a", "good", "facts"), make_scoring(), METADATA)
    store.commit(make_cell("b", "good", "prose"), make_scoring(), QUALITY)
    respond(store, "c")
    store.write_model_run("nightly", "1", {"model": "good", "cells": {"facts": "a" * 64, "prose": "b" * 64}})
    store.write_model_run("nightly", "1", {"model": "poor", "cells": {"facts": "c" * 64, "prose": "d" * 64}})
    return store


@pytest.fixture
def at_work(store: Store) -> Iterator[Lessee]:
    lessee = Lessee(open_storage(store.uri), {"campaign": "other", "model": "twin"})
    assert lessee.acquire("d" * 64)
    yield lessee
    lessee.close()


def respond(store: Store, letter: str) -> None:
    with store.writer(letter * 64) as writer:
        for response in make_responses():
            writer.add(response)


def files(store: Store) -> set[str]:
    return {path.relative_to(store.uri).as_posix() for path in Path(store.uri).rglob("*") if path.is_file()}


@pytest.mark.usefixtures("at_work")
def test_status_says_what_is_complete_begun_and_computed(steelyard: Steelyard, store: Store) -> None:
    code, out, _ = steelyard("status", store.uri)
    assert code == 0
    assert "nightly, run 1: 2 of 4 cells complete, 1 computing, 1 begun, 1 with failed samples" in out
    lines = {tuple(line.split()[:3]): line for line in out.splitlines()}
    assert lines["poor", "facts", "begun"].split()[3] == "6"
    assert "by other · twin since" in lines["poor", "prose", "computing"]
    assert lines["good", "prose", "complete"].split()[3] == "1"
    assert ("good", "facts", "complete") not in lines


def test_status_names_why_a_model_failed_and_has_every_cell_as_json(steelyard: Steelyard, store: Store) -> None:
    store.write_campaign({"campaign": "nightly", "run": "1", "failures": {"poor": "out of memory"}})
    rows = [json.loads(line) for line in steelyard("status", store.uri, "--format", "json")[1].splitlines()]
    states = {(row["model"], row["benchmark"]): (row["state"], row["detail"]) for row in rows}
    assert states == {
        ("good", "facts"): ("complete", ""),
        ("good", "prose"): ("complete", ""),
        ("poor", "facts"): ("failed", "out of memory"),
        ("poor", "prose"): ("failed", "out of memory"),
    }


def test_status_of_a_spec_lists_what_no_run_has_asked_for(steelyard: Steelyard, campaign: Callable[..., str]) -> None:
    code, out, _ = steelyard("status", campaign("steelyard_facts", "steelyard_prose"))
    assert code == 0
    assert "bad: 0 of 2 cells complete, 2 missing" in out


def test_an_empty_store_has_no_status(steelyard: Steelyard, tmp_path: Path) -> None:
    assert steelyard("status", str(tmp_path))[:2] == (0, f"No campaign in {tmp_path} yet\n")
    code, _, err = steelyard("status", str(tmp_path), "--format", "jso")
    assert (code, "use one of table, csv, json" in err) == (2, True)


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        (["--model", "good"], {"a", "b"}),
        (["--benchmark", "facts"], {"a", "c"}),
        (["--model", "good", "--benchmark", "facts"], {"a"}),
        (["--fingerprint", "b" * 8], {"b"}),
    ],
)
def test_invalidate_lists_first_and_takes_away_when_told(
    steelyard: Steelyard, store: Store, options: list[str], taken: set[str]
) -> None:
    before = files(store)
    code, out, _ = steelyard("invalidate", store.uri, *options)
    assert code == 0
    assert f"{len(taken)} cells would be taken out" in out
    assert files(store) == before
    steelyard("invalidate", store.uri, *options, "--yes")
    gone = before - files(store)
    assert gone == {path for path in before if any(letter * 64 in path for letter in taken)}


def test_a_cell_that_was_invalidated_may_be_committed_anew_with_other_numbers(
    steelyard: Steelyard, store: Store
) -> None:
    steelyard("invalidate", store.uri, "--model", "good", "--yes")
    assert store.commit(make_cell("a", "good", "facts"), make_scoring(value=0.5), METADATA)
    assert store.leaderboard("nightly")["score"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "say which cells: --model, --benchmark or --fingerprint"),
        (["--model", "god"], "no cell of .* has that name — did you mean 'good'"),
        (["--benchmark", "fact"], "did you mean 'facts'"),
        (["--fingerprint", "ffffffff"], "no cell of .* begins so"),
        (["--fingerprint", "aa"], "at least 6 digits"),
    ],
)
def test_what_names_no_cell_is_one_line(steelyard: Steelyard, store: Store, options: list[str], words: str) -> None:
    code, out, err = steelyard("invalidate", store.uri, *options, "--yes")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(words, err)


@pytest.mark.usefixtures("at_work")
def test_a_cell_that_somebody_computes_is_not_invalidated(steelyard: Steelyard, store: Store) -> None:
    respond(store, "d")
    code, _, err = steelyard("invalidate", store.uri, "--fingerprint", "d" * 64, "--yes")
    assert (code, "is being computed since" in err) == (2, True)
    assert len(store.responses("d" * 64)) == 6


def made_old(store: Store, *parts: str) -> None:
    for path in Path(store.uri).rglob("*"):
        if path.is_file() and any(part in path.as_posix() for part in parts):
            os.utime(path, (0, 0))


@pytest.mark.usefixtures("at_work")
def test_garbage_goes_past_its_grace_time_and_what_is_in_use_or_foreign_stays(
    steelyard: Steelyard, store: Store
) -> None:
    respond(store, "a")  # of a complete cell
    respond(store, "d")  # of one that is computed
    respond(store, "e")  # young
    store.commit(make_cell("f", "good", "lost"), make_scoring(), METADATA)
    storage = open_storage(store.uri)
    storage.delete([f"cells/{'f' * 64}.json"])
    dead = {"machine": None, "pid": 1, "started": 0}
    storage.put(f"holders/{'0' * 32}.json", json.dumps(dead).encode())
    storage.put(f"leases/{'c' * 64}/000001.json", json.dumps({"holder": "0" * 32, "since": "", "about": {}}).encode())
    storage.put("responses/cell=x/notes.txt", b"mine")
    storage.put("cells/notes.txt", b"mine")
    storage.put(".scratch/half", b"half")
    made_old(store, "c" * 64, "a" * 64, "f" * 64, f"responses/cell={'d' * 64}", f"holders/{'0' * 32}", "half", "notes")
    before = files(store)
    _, out, _ = steelyard("gc", store.uri)
    assert files(store) == before
    assert "left alone  no shard of ours" in out
    code, out, _ = steelyard("gc", store.uri, "--yes")
    gone = before - files(store)
    assert code == 0
    assert f"{len(gone)} files deleted" in out
    kinds = sorted({tuple(path.split("/")[:2]) for path in gone})
    assert kinds == [
        (".scratch", "half"),
        ("holders", f"{'0' * 32}.json"),
        ("leases", "c" * 64),
        ("responses", f"cell={'a' * 64}"),
        ("responses", f"cell={'c' * 64}"),
        ("samples", "benchmark=lost"),
        ("scores", "benchmark=lost"),
    ]
    assert len(store.samples("nightly")) == 6


def test_a_torn_samples_file_without_a_record_is_named(steelyard: Steelyard, store: Store) -> None:
    path = f"samples/benchmark=facts/model=torn/{'9' * 64}.parquet"
    open_storage(store.uri).put(path, b"PAR1")
    open_storage(store.uri).put("samples/benchmark=facts/model=torn/mine.parquet", b"PAR1")
    made_old(store, "model=torn")
    out = steelyard("gc", store.uri, "--yes")[1]
    assert "no samples of ours: no Parquet file" in out
    assert path not in files(store)
    assert "samples/benchmark=facts/model=torn/mine.parquet" in files(store)


def test_upload_of_what_is_no_spool_is_one_line(steelyard: Steelyard, tmp_path: Path) -> None:
    code, _, err = steelyard("upload", str(tmp_path))
    assert (code, err.count("\n")) == (2, 1)
    assert "is no spool" in err


def test_rerun_wants_a_run_to_have_failed(steelyard: Steelyard, campaign: Callable[..., str]) -> None:
    path = campaign()
    code, _, err = steelyard("rerun", path)
    assert (code, "say --failed" in err) == (2, True)
    code, _, err = steelyard("rerun", "--failed", path)
    assert (code, "has no run in" in err, err.count("\n")) == (2, True, 1)


def test_many_shards_become_few_and_hold_the_same(store: Store) -> None:
    with store.writer("e" * 64, rows=1, seconds=0.01) as writer:
        for response in make_responses(100):
            writer.add(response)
    many = [path for path in files(store) if "e" * 64 in path]
    while len(many) < 32:
        respond(store, "e")
        many = [path for path in files(store) if "e" * 64 in path]
    before = store.responses("e" * 64)
    assert store.compact("e" * 64) == before
    assert len([path for path in files(store) if "e" * 64 in path]) == 1
    assert store.responses("e" * 64) == before
    assert len(before) == 200
