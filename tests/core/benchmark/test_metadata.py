"""Arguments in a benchmark's ``metadata``: what no code reads is refused, since it would be passed over in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.benchmark.benchmark import load_benchmark
from core.benchmark.find import leaves_of
from core.benchmark.metadata import check_metadata
from core.campaign import BenchmarkSpec, load_spec
from core.errors import UserError


def check(name: str, **metadata: Any) -> None:
    check_metadata(BenchmarkSpec(name=name, metadata=metadata), leaves_of(name))


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("ruler", {"max_seq_lengths": [4096, 131072]}),
        ("ruler_vt", {"tokenizer": "org/name"}),
        ("babilong", {"max_seq_lengths": "4k"}),  # some of its tasks take none
        ("libra", {"valid_pages": ["8p"]}),
        ("squad_completion", {"anything": 1}),  # in Python: not known
    ],
)
def test_arguments_that_a_task_reads_are_taken(name: str, metadata: dict[str, Any]) -> None:
    check(name, **metadata)


@pytest.mark.parametrize(
    ("name", "metadata", "message"),
    [
        ("niah_single_1", {"max_seq_length": [8192]}, "no code of its tasks reads it — did you mean 'max_seq_lengths'?"),
        ("ruler", {"tokeniser": "org/name"}, "metadata.tokeniser: no code of its tasks reads it — did you mean 'tokenizer'?"),
        ("gsm8k", {"max_seq_lengths": [4096]}, "no code of its tasks takes arguments (custom_dataset): leave it out"),
        ("babilong_qa1", {"qa_split": "qa2"}, "dataset_kwargs of 'babilong_qa1' sets it already: leave it out"),
    ],
)  # fmt: skip
def test_others_are_refused(name: str, metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        check(name, **metadata)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metadata": {"version": 2}}, "version is the task's own: leave it out here"),
        ({"metadata": {"day": {1, 2}}}, "use texts, numbers, true, false, lists and mappings of them"),
        ({"metadata": {"x": float("nan")}}, "use texts, numbers, true, false, lists and mappings of them"),
        ({"metadata": [4096]}, "use a mapping"),
        ({"label": "a b"}, "use letters, digits"),
    ],
)
def test_values_that_cannot_be_arguments_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match="benchmarks\\[0\\]") as caught:
        load_spec({"name": "n", "models": ["org/m"], "benchmarks": [{"name": "ruler", **fields}]})
    assert message in str(caught.value)


def test_one_benchmark_stands_twice_under_labels() -> None:
    twice = [
        {"name": "babilong", "label": f"babilong_{size}", "metadata": {"max_seq_lengths": size}}
        for size in ("1k", "2k")
    ]
    load_spec({"name": "n", "models": ["org/m"], "benchmarks": twice})
    with pytest.raises(UserError, match="two entries are named 'babilong_1k'"):
        load_spec({"name": "n", "models": ["org/m"], "benchmarks": [twice[0], twice[0]]})


def test_arguments_reach_code_that_reads_no_tokenizer_and_are_in_the_identity(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "task: own\ncustom_dataset: !function own.rows\ntest_split: test\ndoc_to_text: '{{q}}'\ndoc_to_target: a\n"
        "metadata: {version: 1.0, size: 1}\n"
    )
    (tmp_path / "own.py").write_text(
        "from datasets import Dataset\ndef rows(version, config_source, size):\n"
        "    return {'test': Dataset.from_list([{'q': str(n)} for n in range(size)])}\n"
    )

    def loaded(**fields: Any) -> Any:
        return load_benchmark(BenchmarkSpec(name=str(tmp_path / "own.yaml"), **fields), chat=None, seed=1)

    plain, more, labelled = loaded(), loaded(metadata={"size": 3}), loaded(label="other")
    assert (plain.docs, more.docs) == (1, 3)
    assert plain.settings != more.settings
    assert labelled.settings == plain.settings
    assert labelled.label == "other"
