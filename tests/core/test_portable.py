"""Specs that mean the same from another directory."""

from pathlib import Path

import pytest

from core.campaign import absolute_paths, load_spec


def test_local_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    spec = load_spec(
        {
            "name": "n",
            "models": ["./m", "here", "~/x", "a/b/c", "/data/d"],
            "benchmarks": ["gsm8k", "tasks/own.yaml", {"name": "/t/other.yml", "limit": 3}],
            "results": "out",
        }
    )
    moved = absolute_paths(spec)
    here = str(tmp_path)
    assert [m.model for m in moved.models] == [
        f"{here}/m",
        f"{here}/here",
        str(Path("~/x").expanduser()),
        f"{here}/a/b/c",
        "/data/d",
    ]
    assert [m.name for m in moved.models] == [m.name for m in spec.models]
    assert [b.name for b in moved.benchmarks] == ["gsm8k", f"{here}/tasks/own.yaml", "/t/other.yml"]
    assert moved.results == f"{here}/out"
    assert absolute_paths(moved) == moved


def test_hub_ids_and_uris_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = load_spec(
        {"name": "n", "models": ["org/model", "s3://b/m"], "benchmarks": ["mmlu"], "results": "s3://b/results"}
    )
    assert absolute_paths(spec) == spec
