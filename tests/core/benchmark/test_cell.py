"""The fingerprints of cells and of rows: what counts is content, wherever it came from and whatever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.benchmark.benchmark import load_benchmark
from core.benchmark.cell import make_cell, rows_digest
from core.benchmark.datasets.call import LoadedDataset
from core.campaign import BenchmarkSpec, FleetSpec, ModelSpec, PolicySpec
from core.model.placement import place
from core.sample import Cell
from tests.core.real_configs import real

FLEET = FleetSpec(gpus=8, gpu_memory_gb=80, device="cuda")


def cell(benchmark: dict[str, Any] | None = None, identity: str = "a", **model: Any) -> Cell:
    checkpoint = replace(real("Llama-3.1-8B"), identity=identity)
    spec = ModelSpec.model_validate({"model": "m", **model})
    return make_cell(spec, checkpoint, place(checkpoint, spec, FLEET, PolicySpec()), "b", benchmark or {"tasks": ["b"]})


@pytest.mark.parametrize(
    "speed",
    [
        {"engine": "distributed"},
        {"tensor_parallel": 4},
        {"replicas": 4},
        {"name": "other"},
        {"vllm": {"max_num_seqs": 8}},
    ],
)
def test_what_only_changes_speed_is_not_part_of_a_cell(speed: dict[str, Any]) -> None:
    assert cell(**speed).fingerprint == cell().fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float32"},
        {"max_model_len": 4096},
        {"chat_template": True},
        {"chat_template": True, "system_prompt": "Be brief."},
        {"chat_template": True, "system_as_user": True},
        {"vllm": {"quantization": "fp8"}},
        {"trust_remote_code": True},
        {"identity": "b"},
        {"benchmark": {"tasks": ["b"], "num_fewshot": 5}},
    ],
)
def test_what_changes_outputs_is(change: dict[str, Any]) -> None:
    assert cell(**change).fingerprint != cell().fingerprint


def test_the_default_type_said_aloud_is_the_same_cell() -> None:
    assert cell(dtype="bfloat16").fingerprint == cell().fingerprint


def test_where_rows_came_from_is_described_and_not_part_of_a_cell() -> None:
    checkpoint, spec = real("Llama-3.1-8B"), ModelSpec(model="m")
    placement = place(checkpoint, spec, FLEET, PolicySpec())
    cells = [
        make_cell(spec, checkpoint, placement, "b", {}, [LoadedDataset("openai/gsm8k", "main", commit, where)])
        for commit, where in (("1" * 40, "hub"), (None, "/mirror"))
    ]
    assert cells[0].fingerprint == cells[1].fingerprint == make_cell(spec, checkpoint, placement, "b", {}).fingerprint
    assert [each.settings["datasets"][0]["place"] for each in cells] == ["hub", "/mirror"]


def test_another_row_or_order_is_another_digest_and_a_key_s_place_is_not() -> None:
    rows: list[dict[str, object]] = [{"q": "1", "a": 2}, {"q": "3", "a": 4}]
    assert rows_digest(rows) == rows_digest([{"a": 2, "q": "1"}, {"a": 4, "q": "3"}])
    others: list[list[dict[str, object]]] = [
        rows[:1],
        rows[::-1],
        [{"q": "1", "a": "2"}, rows[1]],
        [rows[0], rows[1] | {"id": 1}],
    ]
    assert len({rows_digest(each) for each in [rows, *others]}) == len(others) + 1


def test_few_shot_examples_count_each_once_in_any_order() -> None:
    shots = [{"q": "5"}, {"q": "6"}]
    assert rows_digest([], shots) == rows_digest([], [*shots[::-1], shots[0]])
    assert rows_digest([], shots) != rows_digest([], shots[:1])


def test_pixels_and_numbers_count_not_their_addresses() -> None:
    def image(colour: int) -> Image.Image:
        return Image.new("RGB", (2, 3), (colour, 0, 0))

    assert rows_digest([{"i": image(1)}]) == rows_digest([{"i": image(1)}])
    assert rows_digest([{"i": image(1)}]) != rows_digest([{"i": image(2)}])
    assert rows_digest([{"i": np.arange(6)}]) != rows_digest([{"i": np.arange(6).reshape(2, 3)}])
    assert rows_digest([{"i": b"a"}]) != rows_digest([{"i": b"b"}])
    assert rows_digest([{"i": object()}]) == rows_digest([{"i": object()}])


TASK = """\
task: own
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl, train: {folder}/train.jsonl}}}}
test_split: test
training_split: train
fewshot_split: train
doc_to_text: "{{{{q}}}}{more}"
doc_to_target: "{{{{a}}}}"
"""


@pytest.fixture
def digest(tmp_path: Path) -> Callable[..., str]:
    """The digest of a task over rows of one letter each, written to a folder of its own."""

    def of(rows: str = "ab", train: str = "xyz", more: str = "", **fields: Any) -> str:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for name, letters in (("rows", rows), ("train", train)):
            lines = [f'{{"q": "{letter.lower()}", "a": "1", "seen": "{letter}"}}\n' for letter in letters]
            (folder / f"{name}.jsonl").write_text("".join(lines))
        (folder / "own.yaml").write_text(TASK.format(folder=folder, more=more))
        benchmark = load_benchmark(BenchmarkSpec(name=str(folder / "own.yaml"), **fields), chat=None, seed=1)
        return str(benchmark.settings["tasks"]["own"]["rows"])

    return of


def test_a_task_in_another_folder_is_the_same_cell(tmp_path: Path) -> None:
    found = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        for rows in ("rows", "train"):
            (folder / f"{rows}.jsonl").write_text('{"q": "a", "a": "1"}\n')
        (folder / "own.yaml").write_text(TASK.format(folder=folder, more=""))
        found.append(load_benchmark(BenchmarkSpec(name=str(folder / "own.yaml")), chat=None, seed=1).settings)
    assert found[0] == found[1]


def test_a_benchmark_s_rows_are_those_it_used(digest: Callable[..., str]) -> None:
    plain = digest()
    assert plain == digest(more="?"), "the prompt's template is no row"
    assert plain == digest(rows="abc", limit=2), "rows beyond the limit are not used"
    assert plain != digest(rows="aB"), "a field that no prompt shows is part of the row"
    assert plain == digest(train="pqr"), "without few-shot examples the training rows are not used"
    assert digest(num_fewshot=3) != digest(num_fewshot=3, train="xyZ")
