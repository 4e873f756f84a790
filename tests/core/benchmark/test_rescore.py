"""New scores from stored samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.benchmark.benchmark import Benchmark, load_benchmark
from core.benchmark.cell import asked, find_donor
from core.campaign import BenchmarkSpec
from core.request import Generate, Generated, Loglikelihood, Request, Response, Scored
from core.results import Store, open_store
from core.sample import Cell

BUNDLED = Path(__file__).parents[3] / "core" / "benchmarks"


def load(name: str, think_end_token: str | None = None, **fields: Any) -> Benchmark:
    spec = BenchmarkSpec(name=name, **{"limit": 6, **fields})
    return load_benchmark(spec, chat=None, seed=1, think_end_token=think_end_token)


def answers(benchmark: Benchmark) -> dict[str, Response]:
    """An answer to each request, no two alike."""

    def answer(number: int, request: Request) -> Response:
        if isinstance(request, Generate):
            return Generated(request.id, f"it is {number}", "stop", 10, 3, cached_tokens=4, truncated=1)
        return Scored(request.id, -math.sqrt(number + 1), isinstance(request, Loglikelihood), 2, 9, cached_tokens=1)

    return {request.id: answer(number, request) for number, request in enumerate(benchmark.requests())}


@pytest.mark.parametrize("name", ["steelyard_arithmetic", "steelyard_facts", "steelyard_prose"])
@pytest.mark.parametrize("repeats", [None, 2])
def test_stored_samples_score_as_their_responses_did(name: str, repeats: int | None) -> None:
    benchmark = load(name, repeats=repeats if name == "steelyard_arithmetic" else None)
    first = benchmark.score(answers(benchmark))
    again = benchmark.score(benchmark.recall(first.samples))
    assert again == first


def test_reasoning_comes_back_whole() -> None:
    benchmark = load("steelyard_arithmetic", "</think>")
    said = {
        r.id: Generated(r.id, f"so\n\n{n}</think>{n}\nmore", "stop", 5, 9) for n, r in enumerate(benchmark.requests())
    }
    first = benchmark.score(said)
    assert first.samples[1].reasoning == ("so\n\n1",)
    assert benchmark.score(benchmark.recall(first.samples)) == first


def test_a_sample_that_failed_has_no_response() -> None:
    benchmark = load("steelyard_facts")
    given = answers(benchmark)
    lost = benchmark.requests()[0].id
    first = benchmark.score({key: response for key, response in given.items() if key != lost})
    assert len(benchmark.recall(first.samples)) == len(given) - 4


def changed(tmp_path: Path, **fields: Any) -> str:
    """The arithmetic task with other fields, under the name it has."""
    text = (BUNDLED / "steelyard_arithmetic.yaml").read_text()
    (tmp_path / "hooks.py").write_text("from core.benchmarks.hooks import rows\n")
    path = tmp_path / "steelyard_arithmetic.yaml"
    lines = "".join(f"{name}: {yaml.safe_dump(value, default_flow_style=True)}" for name, value in fields.items())
    kept = "".join(block for block in blocks(text) if block.split(":", 1)[0] not in fields)
    path.write_text(kept + lines)
    return str(path)


def blocks(text: str) -> list[str]:
    """Top-level fields of a YAML, each with its lines."""
    found: list[str] = []
    for line in text.splitlines(keepends=True):
        if found and line[:1] in " -#\n":
            found[-1] += line
        else:
            found.append(line)
    return found


def cell_of(benchmark: Benchmark, digit: str, **settings: Any) -> Cell:
    common = {"checkpoint": "c", "dtype": "float32", "max_model_len": 512, "vllm": {}}
    return Cell(digit * 64, "m", "arithmetic", {**common, **settings, "benchmark": benchmark.settings})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "results"))


def test_a_changed_metric_finds_its_donor_and_a_changed_prompt_does_not(tmp_path: Path, store: Store) -> None:
    old = load("steelyard_arithmetic")
    cell = cell_of(old, "a")
    store.commit(cell, old.score(answers(old)), {})
    records = list(store.commit_records().values())

    metrics = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": False}]
    changes: dict[str, dict[str, Any]] = {"metric": {"metric_list": metrics}, "version": {"metadata": {"version": 9.0}}}
    for name, fields in changes.items():
        folder = tmp_path / name
        folder.mkdir()
        new = load(changed(folder, **fields))
        donor = find_donor(cell_of(new, "b"), records)
        assert donor is not None, name
        assert donor["fingerprint"] == cell.fingerprint
    folder = tmp_path / "prompt"
    folder.mkdir()
    assert find_donor(cell_of(load(changed(folder, target_delimiter=" = ")), "b"), records) is None
    assert find_donor(cell_of(load("steelyard_arithmetic", limit=5), "b"), records) is None
    assert find_donor(cell_of(old, "b", dtype="bfloat16"), records) is None
    assert find_donor(cell_of(old, "b", checkpoint="other"), records) is None


def test_names_for_people_are_not_asked_of_a_model() -> None:
    benchmark = load("steelyard_arithmetic")
    assert asked(cell_of(benchmark, "a", source="/one").settings) == asked(
        cell_of(benchmark, "b", source="/two").settings
    )


def test_a_task_s_stops_count_where_the_answer_comes_after_reasoning(tmp_path: Path) -> None:
    fields = {"generation_kwargs": {"until": ["."], "max_gen_toks": 16, "do_sample": False}}
    kept, other = load("steelyard_arithmetic", "</think>"), load(changed(tmp_path, **fields), "</think>")
    assert asked(cell_of(kept, "a").settings) != asked(cell_of(other, "a").settings)
