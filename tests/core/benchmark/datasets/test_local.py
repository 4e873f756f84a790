"""Local files of a benchmark: a fault of a file, a split or its rows is told with the YAML's line, before anything starts."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from core.benchmark.benchmark import load_benchmark
from core.benchmark.datasets import local
from core.benchmark.needed import faults
from core.campaign import BenchmarkSpec, DatasetsSpec
from core.errors import UserError

ROW = '{"q": "Is 0 even?", "gold": 0}\n'
CSV = "q,gold\nIs 0 even?,0\n"


def benchmark(folder: Path, data: str, more: str = "", split: str = "test", kind: str = "json") -> BenchmarkSpec:
    path = folder / "own.yaml"
    path.write_text(
        f"task: own\ndataset_path: {kind}\ndataset_kwargs:\n  {data}\ntest_split: {split}\noutput_type: multiple_choice\n"
        f"doc_to_text: '{{{{q}}}}'\ndoc_to_choice: ['yes', 'no']\ndoc_to_target: gold\n{more}"
    )
    return BenchmarkSpec(name=str(path))


def told(spec: BenchmarkSpec) -> list[str]:
    return [line.partition("own.yaml': ")[2] for line in faults([spec], DatasetsSpec())]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", "", "the split has no rows"),
        ("blank.jsonl", "\n\n", "the split has no rows"),
        ("list.json", "[]", "the split has no rows"),
        ("empty.csv", "", "the split has no rows"),
        ("header.csv", "q,gold\n", "the split has no rows"),
        ("empty.jsonl.gz", gzip.compress(b"", mtime=0), "the split has no rows"),
        ("empty.parquet", b"", "the split has no rows"),
        ("latin.csv", CSV.replace("even", "é").encode("latin-1"), "it is not UTF-8 (byte 0xe9 on line 2): convert it"),
        ("latin.jsonl", (ROW * 9 + ROW.replace("I", "é")).encode("latin-1"), "it is not UTF-8 (byte 0xe9 on line 10)"),
        ("wide.csv", CSV.encode("utf-16"), "it is not UTF-8 (byte 0xff on line 1)"),
        ("comma.jsonl", '{"q": "a",}\n', "it cannot be read as json: ArrowInvalid: JSON parse error: Missing a name"),
        ("half.jsonl", ROW + ROW[:9], "it cannot be read as json: ArrowInvalid: JSON parse error: "),
        (
            "ragged.csv",
            f"{CSV}a,1,2,3\n",
            "it cannot be read as csv: ParserError: Error tokenizing data. C error: Expected 2",
        ),
        ("broken.parquet", b"PAR1 and no more", "it cannot be read as parquet: ArrowInvalid: "),
        ("broken.jsonl.gz", b"plain", "it cannot be read as json: BadGzipFile: Not a gzipped file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_line_and_reason(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path, good = write(tmp_path / name, content), write(tmp_path / "good.jsonl", ROW)
    kind = {".csv": "csv", ".parquet": "parquet"}.get(path.suffix, "json")
    (fault,) = told(benchmark(tmp_path, f"data_files: {{test: '{path}'}}", kind=kind))
    assert fault.startswith(f"line 4: dataset_kwargs.data_files.test = '{path}': {message}")
    if kind == "json":
        (fault,) = told(benchmark(tmp_path, f"data_files: {{train: ['{good}'], test: '{path}'}}"))
        assert f"data_files.test = '{path}': {message}" in fault


def test_a_parquet_file_without_rows_is_none_that_cannot_be_read(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"q": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    (fault,) = told(benchmark(tmp_path, f"data_files: {{test: {tmp_path}/rows.parquet}}", kind="parquet"))
    assert fault.endswith("rows.parquet': the split has no rows")


@pytest.mark.parametrize(
    ("data", "split", "more", "message"),
    [
        ("data_files: {train: FILE}", "test", "", "line 5: test_split = 'test': the files give 'train'"),
        ("data_files: FILE", "test", "", "line 5: test_split = 'test': the files give 'train'"),
        ("data_files: [FILE, FILE]", "test", "", "line 5: test_split = 'test': the files give 'train'"),
        (
            "data_files: {test: FILE}",
            "tset",
            "",
            "line 5: test_split = 'tset': the files give 'test' — did you mean 'test'?",
        ),
        (
            "data_files: {test: FILE}",
            "test",
            "fewshot_split: trian\n",
            "line 10: fewshot_split = 'trian': the files give 'test'",
        ),
        (
            "data_files: {test: FILE}",
            "test",
            "training_split: train\n",
            "line 10: training_split = 'train': the files give",
        ),
        (
            "data_files: {test: FILE}",
            "test",
            "fewshot_config: {split: train}\n",
            "line 10: fewshot_config.split = 'train': the files give 'test'",
        ),
        ("{data_files: {test: FILE}, split: test}", "test", "", "line 4: dataset_kwargs.split = 'test': leave it out"),
        (
            "{data_files: {test: FILE}, fild: a}",
            "test",
            "",
            "line 4: dataset_kwargs.fild = 'a': json files have no such option",
        ),
        ("{data_files: {}}", "test", "", "line 2: dataset_kwargs.data_files is missing: name the files with it"),
    ],
)
def test_a_split_that_the_files_do_not_give_is_told_with_its_line(
    tmp_path: Path, data: str, split: str, more: str, message: str
) -> None:
    path = write(tmp_path / "rows.jsonl", ROW)
    spec = benchmark(tmp_path, data.replace("FILE", str(path)), more, split)
    (fault,) = told(spec)
    assert fault.startswith(message)
    with pytest.raises(UserError):
        load_benchmark(spec, chat=None, seed=1)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("data_files: {test: FOLDER/rows.jsonl}", "json"),
        ("data_files: {test: 'FOLDER/r*s.jsonl'}", "json"),
        ("data_files: {test: 'FOLDER/**/rows.jsonl'}", "json"),
        ("data_files: {test: [FOLDER/rows.jsonl, FOLDER/bom.jsonl]}", "json"),
        ("data_files: {test: FOLDER/rows.jsonl.gz}", "json"),
        ("data_files: {test: FOLDER/rows.zip}", "json"),
        ("data_files: {test: FOLDER/rows.csv, dev: FOLDER/rows.csv}", "csv"),
        ("{data_files: {test: FOLDER/latin.csv}, encoding: latin-1}", "csv"),
        ("{data_files: {test: rows.jsonl}, data_dir: FOLDER}", "json"),
        ("trust_remote_code: true", "FOLDER/folder"),
    ],
)
def test_what_the_harness_reads_is_taken(tmp_path: Path, data: str, kind: str) -> None:
    write(tmp_path / "rows.jsonl", ROW)
    write(tmp_path / "bom.jsonl", b"\xef\xbb\xbf" + ROW.encode())
    write(tmp_path / "rows.jsonl.gz", gzip.compress(ROW.encode()))
    write(tmp_path / "rows.csv", CSV)
    write(tmp_path / "latin.csv", CSV.replace("even", "é").encode("latin-1"))
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.writestr("inner.jsonl", ROW)
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "test.jsonl", ROW)
    spec = benchmark(tmp_path, data.replace("FOLDER", str(tmp_path)), kind=kind.replace("FOLDER", str(tmp_path)))
    assert told(spec) == []
    assert load_benchmark(spec, chat=None, seed=1).docs >= 1


@pytest.mark.parametrize("place", ["https://example.org/rows.jsonl", "hf://datasets/org/rows/rows.jsonl"])
def test_splits_of_files_elsewhere_are_known_by_their_names(tmp_path: Path, place: str) -> None:
    def split_faults(data: str) -> list[str]:
        return [line for line in told(benchmark(tmp_path, data)) if "test_split" in line]

    assert split_faults(f"data_files: {{test: '{place}'}}") == []
    for data in (f"data_files: {{train: '{place}'}}", f"data_files: '{place}'"):
        assert split_faults(data) == ["line 5: test_split = 'test': the files give 'train'"]


def test_columns_that_differ_between_files_are_told_of_all_of_them(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.jsonl", ROW), write(tmp_path / "b.jsonl", '{"other": 1}\n')]
    (fault,) = told(benchmark(tmp_path, f"data_files: {{test: [{files[0]}, {files[1]}]}}"))
    assert fault.startswith(f"line 4: '{files[0]}, {files[1]}' cannot be read: CastError: Couldn't cast")
    assert "column names don't match" in fault


def test_of_very_large_files_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.jsonl", ROW)
    monkeypatch.setattr(local, "MOST_BYTES", 1)
    assert told(benchmark(tmp_path, f"data_files: {{test: {path}}}")) == []
    assert "the split has no rows" in told(benchmark(tmp_path, f"data_files: {{test: {write(path, '')}}}"))[0]
