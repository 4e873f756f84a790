"""The public face: what it names, what it loads, and Steelyard installed beside folders with its packages' names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import steelyard
from tests import models
from tests.checkpoints import write_checkpoint

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("core", "engines", "tasks", "flows", "deployments")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts' folder of an environment that has Steelyard's wheel; what it depends on is this environment's."""
    folder = tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / "tree" / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("steelyard.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "tree")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "tree")], folder)
    wheel = next(folder.glob("*.whl"))
    run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], folder)
    ours = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    # A folder named in a .pth file is looked in, but its own .pth files are not read: the checkout stays unknown.
    (ours / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with packages of the user's that are named as ours are."""
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    return tmp_path


def run(command: list[str], cwd: Path, code: int = 0) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"COLUMNS": "200"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def write_spec(folder: Path, model: Path) -> None:
    text = f"name: tiny\nmodels: [{model}]\nbenchmarks: [{{name: steelyard_facts, limit: 4}}]\nresults: results\n"
    (folder / "tiny.yaml").write_text(text)


def test_the_face_has_at_most_twelve_names_each_documented_and_there() -> None:
    assert len(steelyard.__all__) <= 12
    assert dir(steelyard) == sorted(steelyard.__all__)
    assert all(getattr(steelyard, name).__doc__ for name in steelyard.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'campain'"):
        _ = steelyard.campain


def test_reading_a_store_loads_neither_prefect_nor_an_engine(installed: Path, tmp_path: Path) -> None:
    heavy = "[name for name in ('prefect', 'vllm', 'ray', 'torch', 'pandas') if name in sys.modules]"
    code = f"from steelyard import open_store; import sys; open_store('results'); print(open_store.__module__, {heavy})"
    assert run([str(installed / "python"), "-c", code], tmp_path).strip() == "core.results []"


def test_the_face_names_the_folder_in_the_way_and_what_to_do(installed: Path, project: Path) -> None:
    (project / "script.py").write_text("from steelyard import campaign\n")
    said = run([str(installed / "python"), "script.py"], project, code=1).splitlines()[-1]
    assert said.startswith(f"ImportError: {project / 'core'} is in the way: ")
    assert "in a directory without core/, engines/, tasks/, flows/ or deployments/" in said
    assert 'run_deployment("campaign/campaign", parameters={"spec": …})' in said


def test_the_face_plans_in_a_clean_directory(installed: Path, tmp_path: Path) -> None:
    write_spec(tmp_path, write_checkpoint(tmp_path / "model"))
    (tmp_path / "script.py").write_text(
        "from steelyard import plan\nprint(plan('tiny.yaml').models[0].placement.engine)\n"
    )
    assert run([str(installed / "python"), "script.py"], tmp_path).strip() == "lightweight"


def test_the_command_plans_beside_such_folders(installed: Path, project: Path) -> None:
    write_spec(project, write_checkpoint(project / "model"))
    assert "lightweight" in run([str(installed / "steelyard"), "plan", "tiny.yaml"], project)


@pytest.mark.vllm
def test_the_command_runs_beside_such_folders_with_its_server_and_its_engine(installed: Path, project: Path) -> None:
    write_spec(project, models.smollm2(models.cache_directory(project)))
    assert "1.0000" in run([str(installed / "steelyard"), "run", "tiny.yaml"], project)
