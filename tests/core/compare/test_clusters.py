"""Which docs belong together: named in a benchmark's YAML, read from its docs."""

from pathlib import Path

import pytest

from core.benchmark.find import cluster_field
from core.compare.paired import cluster_keys
from core.errors import UserError


def write_benchmark(folder: Path, metadata: str) -> str:
    path = folder / "passages.yaml"
    path.write_text(
        "task: passages\ndataset_path: json\noutput_type: generate_until\ntest_split: train\n"
        f"doc_to_text: '{{{{question}}}}'\ndoc_to_target: '{{{{answer}}}}'\nmetadata: {metadata}\n"
    )
    return str(path)


def test_a_benchmark_names_its_cluster_in_its_metadata(tmp_path: Path) -> None:
    assert cluster_field(write_benchmark(tmp_path, "{version: 1.0, cluster: passage}")) == "passage"


def test_a_benchmark_that_names_none_has_none(tmp_path: Path) -> None:
    assert cluster_field(write_benchmark(tmp_path, "{version: 1.0}")) is None
    assert cluster_field("steelyard_facts") is None


def test_a_cluster_that_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metadata\.cluster = \['passage', 'title'\]: name one field"):
        cluster_field(write_benchmark(tmp_path, "{cluster: [passage, title]}"))


def test_docs_have_one_key_where_the_field_is_the_same() -> None:
    docs = ['{"passage": {"id": 1, "text": "x"}}', '{"passage": {"text": "x", "id": 1}}', '{"passage": 1}']
    first, second, third = cluster_keys("passages", docs, "passage")
    assert first == second != third


def test_a_doc_without_the_field_is_alone_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    keys = cluster_keys("passages", ['{"p": "x"}', '{"q": 1}', '{"p": null}', "3", '{"p": "x"}'], "p")
    assert (keys[0], len(set(keys))) == (keys[4], 4)
    assert "'p': 3 of 5 docs have no such field" in caplog.text
