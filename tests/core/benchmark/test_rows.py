"""The fingerprint of rows: their content, wherever they came from and whatever the prompt shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.benchmark.benchmark import load_benchmark
from core.benchmark.rows import rows_digest
from core.campaign import BenchmarkSpec


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
