"""docs/schema.md is what the schemas say, and its one-line readers read a store."""

import importlib
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest

from core.results import open_store
from tests.core.store.schema_page import PAGE, READERS, TABLES, page
from tests.core.store_parts import METADATA, make_cell, make_scoring

MODULES = {
    "Steelyard": "steelyard",
    "pandas": "pandas",
    "pyarrow": "pyarrow.dataset",
    "DuckDB": "duckdb",
    "polars": "polars",
    "HF datasets": "datasets",
}


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it with: python -m tests.core.store.schema_page"


def test_every_column_has_its_line() -> None:
    text = page()
    for module, name, *_ in TABLES:
        section = text.split(f"## {name.lower()}\n")[1].split("\n## ")[0]
        for field in getattr(module, name):
            (line,) = [line for line in section.splitlines() if line.startswith(f"| `{field.name}` |")]
            assert line.split("|")[4].strip(), line


@pytest.mark.parametrize("name", sorted(READERS))
def test_each_reader_reads_a_store(name: str, tmp_path: Path) -> None:
    package = MODULES[name].split(".")[0]
    pytest.importorskip(package)
    importlib.import_module(MODULES[name])
    store = open_store(str(tmp_path / "store"))
    for letter, benchmark in (("a", "gsm8k"), ("b", "mmlu")):
        store.commit(make_cell(letter, benchmark=benchmark), make_scoring(docs=5), METADATA)
    scope: dict[str, Any] = {"STORE": store.uri, package: importlib.import_module(package), "pyarrow": pyarrow}
    scope["COLUMNS"] = ["benchmark", "model", "task", "doc_id", "prompt", "texts", "value"]
    exec(READERS[name], scope)
    found = next(scope[key] for key in ("frame", "table", "rows", "data") if key in scope)
    if name == "polars":
        found = found.collect()
    columns = set(found.column_names if hasattr(found, "column_names") else found.columns)
    assert len(found) == 10
    assert {"benchmark", "model", "task", "doc_id", "value"} <= columns
    assert f"    {READERS[name]}\n" in page()
