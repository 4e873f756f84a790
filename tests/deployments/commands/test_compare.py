"""``steelyard compare`` in process: what it prints, and its exit code as a gate."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.results import open_store
from tests.core.compare.test_between import store_cell

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Of 40 docs the new model loses eight and gains two."""
    opened = open_store(str(tmp_path / "store"))
    store_cell(opened, "old", "gsm8k", [1.0] * 20 + [0.0] * 20)
    store_cell(opened, "new", "gsm8k", [1.0] * 12 + [0.0] * 8 + [1.0] * 2 + [0.0] * 18)
    return opened.uri


def test_a_difference_is_shown_with_its_test_and_flipped_docs(steelyard: Run, store: str) -> None:
    code, out, _ = steelyard("compare", "old", "new", "--store", store)
    assert code == 0
    for text in ("-0.1500", "0.1094", "McNemar", "B lost: gsm8k, gsm8k doc 12", "new says 12", "B gained: gsm8k"):
        assert text in out


def test_gates_decide_the_exit_code(steelyard: Run, store: str) -> None:
    compare = ("compare", "old", "new", "--store", store)
    assert steelyard(*compare, "--max-regression", "0.2", "--fail-below", "gsm8k=0.3")[0] == 0
    code, _, err = steelyard(*compare, "--max-regression", "0.1")
    assert (code, err) == (1, "steelyard: new, gsm8k: acc is 0.1500 worse, more than 0.1 (--max-regression)\n")
    assert steelyard(*compare, "--max-regression", "0.1", "--significant")[0] == 0
    assert steelyard(*compare, "--fail-below", "0.4")[0] == 1


def test_a_benchmark_that_b_lacks_holds_no_gate(steelyard: Run, store: str) -> None:
    store_cell(open_store(store), "old", "mmlu", [1.0] * 5)
    code, _, err = steelyard("compare", "old", "new", "--store", store, "--max-regression", "1")
    assert (code, "new (B) has no mmlu, which old (A) has" in err) == (1, True)
    assert steelyard("compare", "old", "new", "--store", store)[0] == 0
    assert steelyard("compare", "old", "new", "--store", store, "--max-regression", "1", "--benchmark", "gsm8k")[0] == 0


def test_other_formats_have_every_row(steelyard: Run, store: str) -> None:
    compare = ("compare", "old", "new", "--store", store)
    (line,) = steelyard(*compare, "--format", "json")[1].splitlines()
    row = json.loads(line)
    assert (row["gained"], row["lost"], row["docs"]) == (2, 8, 40)
    flips = [json.loads(line) for line in steelyard(*compare, "--format", "json", "--flipped")[1].splitlines()]
    assert [flip["doc_id"] for flip in flips] == [20, 21, *range(12, 20)]
    assert steelyard(*compare, "--format", "csv")[1].startswith("model_a,model_b,benchmark,")
    markdown = steelyard(*compare, "--format", "markdown")[1]
    assert "| gsm8k | old → new | acc | 0.5000 | 0.3500 | -0.1500 |" in markdown
    assert "    new says 12" in markdown


def test_wrong_names_are_one_line_and_exit_2(steelyard: Run, store: str) -> None:
    for arguments, words in (
        (("compare", "old", "nwe", "--store", store), "B = 'nwe': no such model or campaign — did you mean 'new'?"),
        (("compare", "old", "new", "--store", store, "--benchmark", "mmlu"), "not in both; A has gsm8k; B has gsm8k"),
        (("compare", "old", "new", "--store", store, "--format", "xml"), "use one of table, markdown, csv, json"),
    ):
        code, _, err = steelyard(*arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert words in err
