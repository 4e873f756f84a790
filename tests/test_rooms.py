"""The house of CONTRIBUTING.md: a room imports only rooms to its left, and heavy libraries stay in theirs."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ["core", "engines", "tasks", "flows", "deployments"]
HEAVY = ["prefect", "vllm", "ray", "torch"]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_to_its_left(room: str) -> None:
    right = set(ROOMS[ROOMS.index(room) + 1 :])
    assert not {(str(path), name) for path in files(room) for name in imported(path) if name in right}


def test_only_engines_know_vllm_and_ray() -> None:
    outside = [path for room in ROOMS if room != "engines" for path in files(room)]
    assert not {(str(path), name) for path in outside for name in imported(path) if name in ("vllm", "ray")}


def test_core_and_engines_do_not_know_prefect() -> None:
    inside = [path for room in ("core", "engines") for path in files(room)]
    assert not {(str(path), name) for path in inside for name in imported(path) if name == "prefect"}


def test_importing_core_imports_nothing_heavy() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files("core") if path.name != "__init__.py"
    ]
    modules = [name for name in modules if not name.startswith("core.benchmarks.")]
    code = f"import importlib, json, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    code += f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_campaign_process_does_not_load_vllm_or_torch() -> None:
    code = "import flows.campaign, sys; print([name for name in ('vllm', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
