"""The arguments of code that makes docs, as its source shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.benchmark.find import leaves_of
from core.catalogue.arguments import Reads, reads
from core.catalogue.index import harness_index
from core.yaml_file import FunctionName


def of_catalogue(task: str) -> Reads:
    return reads(leaves_of(task)[0].config["custom_dataset"])


def written(folder: Path, text: str) -> Reads:
    (folder / "own.py").write_text(text)
    return reads(FunctionName("own.rows", folder))


def test_of_the_catalogue_ruler_s_tasks_alone_make_docs_for_a_tokenizer() -> None:
    functions = {
        name: function
        for name, entry in harness_index().entries.items()
        if isinstance(function := (entry.config or {}).get("custom_dataset"), FunctionName)
    }
    assert len(functions) > 40
    assert {name for name, function in functions.items() if reads(function).tokenizer} == {
        leaf.name for leaf in leaves_of("ruler")
    }


@pytest.mark.parametrize(
    ("task", "argument"),
    [
        ("niah_single_1", "max_seq_lengths"),
        ("ruler_qa_hotpot", "max_seq_lengths"),  # handed on with **
        ("babilong_qa1", "max_seq_lengths"),
        ("graphwalks_128k", "data_file"),
        ("passkey", "valid_pages"),
        ("cieacova_choice", "revision"),
    ],
)
def test_arguments_of_the_catalogue_are_found(task: str, argument: str) -> None:
    assert argument in of_catalogue(task).names
    assert "max_seq_length" not in of_catalogue(task).names  # a parameter of RULER's inner functions


def test_modules_beside_it_are_followed_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text(
        "KEYS = ('pretrained', 'size')\ndef name(kwargs):\n    return [kwargs.get(k) for k in KEYS]\n"
    )
    for text in (
        "from helper import name\ndef rows(**kw):\n    return name(kw)\n",
        "import helper\ndef rows(**kw):\n    return helper.name(kw)\n",
    ):
        found = written(tmp_path, text)
        assert found.tokenizer
        assert {"pretrained", "size"} <= found.names
        assert [file.name for file in found.files] == ["helper.py", "own.py"]
        assert not found.passed_on
    unused = written(
        tmp_path, "import helper\ndef other(k):\n    return helper.name(k)\ndef rows(**kw):\n    return 1\n"
    )
    assert not unused.tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "def rows(tokenizer, **_):\n    pass\n",
        "def rows(**kw):\n    return kw['tokenizer']\n",
        "def rows(**kw):\n    return kw.pop('pretrained', None)\n",
        "def load(tokenizer=None, **_):\n    pass\ndef rows(**kw):\n    return load(**kw)\n",
    ],
)
def test_a_tokenizer_is_a_parameter_or_a_key(tmp_path: Path, text: str) -> None:
    assert written(tmp_path, text).tokenizer


def test_what_is_handed_to_other_code_may_be_read_there(tmp_path: Path) -> None:
    assert written(
        tmp_path, "from datasets import load_dataset\ndef rows(**kw):\n    return load_dataset(**kw)\n"
    ).passed_on
    assert written(tmp_path, "rows = make()\n").files == (tmp_path / "own.py",)


def test_packages_are_those_of_the_modules_it_reaches() -> None:
    assert {"nltk", "numpy", "transformers"} <= of_catalogue("niah_single_1").packages().keys()
    assert "nltk" not in of_catalogue("ruler_vt").packages()
