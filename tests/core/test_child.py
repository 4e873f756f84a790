"""A child process imports the modules that this one has, not others of their names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import core
from core.child import with_our_modules


def test_it_finds_ours_in_a_folder_that_has_others(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").write_text("raise SystemExit('theirs')")
    command = [sys.executable, "-c", "import core; print(core.__file__)"]
    done = subprocess.run(
        command, cwd=tmp_path, env=with_our_modules(os.environ), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == core.__file__


def test_what_people_have_on_their_path_stays() -> None:
    assert with_our_modules({"PYTHONPATH": "/a:/b", "HOME": "/h"})["PYTHONPATH"].endswith(f"{os.pathsep}/a:/b")
    assert with_our_modules({"HOME": "/h"})["HOME"] == "/h"
