"""Names and files from elsewhere stay where they belong: no path leaves its root, no YAML and no stored file makes code run."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from core.campaign import read_spec_file
from core.errors import StoreError, UserError
from core.results import open_store
from core.storage.local import LocalStorage
from core.storage.open import open_storage
from core.storage.storage import within
from core.yaml_file import YamlFault, read_task_yaml
from tests.core.store_parts import METADATA, make_cell, make_scoring

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("core", "engines", "tasks", "flows", "deployments")
OUTSIDE = ["../out", "a/../../out", "/etc/passwd", "..", "a\0b"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(StoreError, match="leads out of its folder"):
        within(path)


@pytest.mark.parametrize("path", ["a", "a/b.parquet", "benchmark=..%2Fx/model=a", "a..b", "..a/b"])
def test_others_are_left_as_they_are(path: str) -> None:
    assert within(path) == path


@pytest.mark.parametrize("path", ["../out", "a/../../out"])
def test_a_local_store_touches_nothing_outside(tmp_path: Path, path: str) -> None:
    (tmp_path / "out").write_bytes(b"ours")
    store = LocalStorage(tmp_path / "store" / "deep" if path.startswith("a") else tmp_path / "store")
    store.put("a/kept", b"1")
    for act in (
        lambda: store.read(path),
        lambda: store.put(path, b"theirs"),
        lambda: store.put_new(path, b"theirs"),
        lambda: store.delete([path]),
        lambda: store.read_many([path]),
    ):
        with pytest.raises(StoreError, match="leads out"):
            act()
    assert (tmp_path / "out").read_bytes() == b"ours"


def test_a_key_of_s3_is_refused_before_anybody_is_asked() -> None:
    with pytest.raises(StoreError, match="leads out"):
        open_storage("s3://bucket/prefix").read("../other")


def test_names_that_climb_stay_inside(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.commit(make_cell("a", "../../../up", "../../up"), make_scoring(), METADATA)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert set(store.samples()["benchmark"]) == {"../../up"}


def test_a_record_that_names_a_file_elsewhere_is_not_followed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.commit(make_cell(), make_scoring(), METADATA)
    (record,) = (tmp_path / "store" / "cells").iterdir()
    content = json.loads(record.read_text())
    for entry in content["files"]:
        entry["path"] = f"{entry['path'].partition('/')[0]}/../../secret.parquet"
    record.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="leads out"):
        store.samples()


@pytest.mark.parametrize("text", ["name: !!python/object/apply:os.getcwd []\n", "name: !!python/name:os.system\n"])
def test_yaml_makes_values_only(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="is not YAML"):
        read_spec_file(path)
    for lenient in (False, True):
        with pytest.raises(YamlFault, match="could not determine a constructor"):
            read_task_yaml(path, lenient=lenient)


def test_no_room_reads_pickles() -> None:
    """But between an engine and its child, over their own socket (`multiprocessing`), and within Ray."""
    found = []
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [
                (path.name, name) for name in names if name.split(".")[0] in ("pickle", "marshal", "shelve", "dill")
            ]
            if isinstance(node, ast.Attribute) and node.attr in ("read_pickle", "unsafe_load", "full_load"):
                found.append((path.name, node.attr))
    assert found == []
