"""Answers found by what was asked, whichever cell they were given for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.benchmark.benchmark import load_benchmark
from core.benchmark.cell import asked_digest
from core.campaign import BenchmarkSpec
from core.cell_work import CellWork
from core.errors import SteelyardError
from core.request import Generated, Response
from core.results import Store, open_store
from core.sample import Cell
from core.storage.open import open_storage
from core.upkeep.answers import is_answered, score_stored, stored_answers
from core.upkeep.garbage import collect, find_garbage
from core.upkeep.recompute import invalidate
from tests.core.task_folder import GENERATE, Function, write_task

ROWS = [{"q": f"{number}?"} for number in range(4)]
BROKEN = "def results(doc, answers):\n    return {'hit': doc['nowhere']}\n"
MENDED = "def results(doc, answers):\n    return {'hit': len(answers[0])}\n"
ABOUT = {"engine": "lightweight", "placement": {"tensor_parallel": 1}, "vllm_version": "0"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "results"))


def work(folder: Path, functions: str, letter: str, **changes: Any) -> CellWork:
    """A cell whose fingerprint is made of ``letter``; its task calls ``functions``."""
    (folder / letter).mkdir()
    fields: dict[str, Any] = {
        **GENERATE,
        "metric_list": [{"metric": "hit", "aggregation": "mean", "higher_is_better": True}],
        "process_results": Function("mine.results"),
        **changes,
    }
    path = write_task(folder / letter, "t", fields, ROWS, functions)
    benchmark = load_benchmark(BenchmarkSpec(name=path), chat=None, seed=1)
    settings = {"checkpoint": "c", "dtype": "float32", "vllm": {}, "benchmark": benchmark.settings}
    cell = Cell(letter * 64, "m", "t", settings)
    return CellWork(cell, benchmark, complete=False, asked=asked_digest(cell))


def answer(store: Store, asked: CellWork, *, but: int | None = None, error: int | None = None) -> list[Response]:
    """Store an answer to each request, ``but`` one, with the ``error`` of another, as a run does."""
    store.write_asked(asked.asked, asked.cell.fingerprint, ABOUT)
    given: list[Response] = [
        Generated(request.id, "abc", "stop", 5, 2, error="too long" if number == error else None)
        for number, request in enumerate(asked.benchmark.requests())
        if number != but
    ]
    with store.writer(asked.cell.fingerprint) as writer:
        for response in given:
            writer.add(response)
    return given


def test_a_mended_metric_scores_the_answers_of_a_cell_that_could_not_be_scored(tmp_path: Path, store: Store) -> None:
    broken, mended = work(tmp_path, BROKEN, "a"), work(tmp_path, MENDED, "b")
    given = answer(store, broken)
    with pytest.raises(SteelyardError, match="no doc could be scored"):
        score_stored(store, broken)
    assert is_answered(store, mended)
    assert stored_answers(store, mended).responses == {response.id: response for response in given}
    assert score_stored(store, mended)
    record = store.commit_record(mended.cell.fingerprint)
    assert record is not None
    metadata = record["metadata"]
    assert record["headline"]["value"] == 3.0
    assert (metadata["engine"], metadata["rescored_from"]) == ("lightweight", broken.cell.fingerprint)
    assert (metadata["prompt_tokens"], metadata["completion_tokens"]) == (20, 8)


def test_a_cell_s_own_answers_are_scored_where_the_fault_was_outside_its_settings(tmp_path: Path, store: Store) -> None:
    own = work(tmp_path, MENDED, "a")
    answer(store, own)
    assert score_stored(store, own)
    record = store.commit_record(own.cell.fingerprint)
    assert record is not None
    assert "rescored_from" not in record["metadata"]
    assert record["metadata"]["engine"] == "lightweight"


def test_a_complete_cell_gives_its_answers_too(tmp_path: Path, store: Store) -> None:
    first, second = work(tmp_path, MENDED, "a"), work(tmp_path, MENDED.replace("len", "2 * len"), "b")
    answer(store, first)
    assert score_stored(store, first)
    assert store.responses(first.cell.fingerprint) == {}
    assert score_stored(store, second)
    record = store.commit_record(second.cell.fingerprint)
    assert record is not None
    assert (record["headline"]["value"], record["metadata"]["rescored_from"]) == (6.0, "a" * 64)


def test_answers_to_anything_else_are_not_taken(tmp_path: Path, store: Store) -> None:
    answer(store, work(tmp_path, MENDED, "a"))
    others: list[dict[str, Any]] = [{"doc_to_text": "{{q}}"}, {"generation_kwargs": {"until": ["."]}}]
    for letter, changes in zip("bc", others, strict=True):
        other = work(tmp_path, MENDED, letter, **changes)
        assert not is_answered(store, other)
        assert stored_answers(store, other).responses == {}
    alike = work(tmp_path, MENDED, "d")
    elsewhere = Cell("e" * 64, "m", "t", {**alike.cell.settings, "checkpoint": "other"})
    assert not is_answered(store, replace(alike, cell=elsewhere, asked=asked_digest(elsewhere)))


def test_where_answers_lack_those_there_are_count_and_the_rest_is_to_ask(tmp_path: Path, store: Store) -> None:
    broken, mended = work(tmp_path, BROKEN, "a"), work(tmp_path, MENDED, "b")
    answer(store, broken, but=1)
    assert not is_answered(store, mended)
    assert not score_stored(store, mended, errors_too=True)
    assert len(stored_answers(store, mended).responses) == 3


def test_a_request_that_failed_is_asked_again_unless_no_engine_is_wanted(tmp_path: Path, store: Store) -> None:
    broken, mended = work(tmp_path, BROKEN, "a"), work(tmp_path, MENDED, "b")
    answer(store, broken, error=2)
    assert not is_answered(store, mended)
    assert not score_stored(store, mended)
    assert score_stored(store, mended, errors_too=True)
    errors = [sample.error for sample in store.cell_samples(mended.cell.fingerprint)]
    assert errors == [None, None, "too long", None]


def test_what_is_invalidated_is_found_no_more(tmp_path: Path, store: Store) -> None:
    first, second = work(tmp_path, MENDED, "a"), work(tmp_path, MENDED, "b")
    answer(store, first)
    answer(store, second)
    assert score_stored(store, first)
    storage = open_storage(store.uri)
    invalidate(storage, second.cell.fingerprint, keep_responses=True)
    assert is_answered(store, second)
    invalidate(storage, second.cell.fingerprint)
    assert not is_answered(store, second)
    assert store.is_complete(first.cell.fingerprint)


def test_what_a_cell_asked_is_garbage_once_nothing_of_it_is_left(tmp_path: Path, store: Store) -> None:
    complete, begun, gone = (work(tmp_path, MENDED, letter) for letter in "abc")
    for each in (complete, begun):
        answer(store, each)
    assert score_stored(store, complete)
    store.write_asked(gone.asked, gone.cell.fingerprint, ABOUT)
    storage = open_storage(store.uri)
    storage.put("asked/notes.txt", b"mine")
    found = {each.path: each for each in find_garbage(store, grace=0.0) if each.path.startswith("asked/")}
    assert {path: each.foreign for path, each in found.items()} == {
        f"asked/{gone.asked}/{'c' * 64}.json": False,
        "asked/notes.txt": True,
    }
    collect(store, list(found.values()))
    assert set(store.cells_asking(complete.asked)) == {"a" * 64, "b" * 64}
