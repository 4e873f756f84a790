"""Nothing stays of processes that are killed: temporary files, and shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, uuids

from core.errors import UserError
from engines.host.folder import (
    SHARED_MEMORY,
    compiled_folder,
    process_named,
    runtime_folder,
    shared_memory_of,
)
from engines.process.child import Child
from engines.process.engine import child_environment

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="shared memory is found on Linux alone")


@pytest.mark.parametrize("how", ["kill", "end of input", "crash"])
def test_a_process_that_ends_takes_its_files_with_it(how: str) -> None:
    child = Child("scripted", "tests.engines.scripted_process", child_environment(os.environ), scratch=True)
    child.send(("open", -1.0))
    kind, facts = child.connection.recv()
    assert kind == "ready"
    child.note_shared_memory()
    shared, file = SHARED_MEMORY / facts["detail"]["shared"], Path(facts["detail"]["file"])
    assert file.parent.parent == runtime_folder()
    assert shared.exists() and file.exists()  # noqa: PT018
    match how:
        case "kill":
            child.kill()
        case "end of input":
            child.end_input()
        case "crash":
            os.kill(child.pid, signal.SIGKILL)
    assert child.exited.wait(20)
    assert not shared.exists()
    assert not file.parent.exists()
    child.discard()


def test_a_killed_parent_leaves_nothing_of_its_process() -> None:
    script = """
import os, sys
from engines.process.child import Child
from engines.process.engine import child_environment
child = Child("scripted", "tests.engines.scripted_process", child_environment(os.environ), scratch=True)
child.send(("open", -1.0))
detail = child.connection.recv()[1]["detail"]
child.log.unlink()
print(detail["shared"], detail["file"], flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        shared, file = parent.stdout.readline().split()
        assert (SHARED_MEMORY / shared).exists()
        parent.kill()
    deadline = time.monotonic() + 20
    while (SHARED_MEMORY / shared).exists() or Path(file).parent.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_memory_that_was_there_before_or_is_anothers_is_left_alone() -> None:
    memory = SharedMemory(create=True, size=64)
    path = SHARED_MEMORY / memory.name
    try:
        assert path in shared_memory_of(os.getpgrp(), time.time() - 60)
        assert path not in shared_memory_of(os.getpgrp(), time.time() + 60)
        assert path not in shared_memory_of(1, 0.0)
    finally:
        memory.close()
        memory.unlink()


def test_a_name_with_a_process_id_is_that_process() -> None:
    ours, longer = SHARED_MEMORY / f"sy-test_{os.getpid()}_a", SHARED_MEMORY / f"sy-test_{os.getpid()}0_a"
    try:
        ours.touch()
        longer.touch()
        found = shared_memory_of(os.getpgrp(), time.time() - 60)
        assert ours in found
        assert longer not in found
    finally:
        ours.unlink()
        longer.unlink()


PROCESSES = integers(1, 2**22)  # Linux's largest id


@given(uuid=uuids(), process=PROCESSES, random=binary(min_size=4, max_size=16))
def test_digits_of_random_names_are_no_process_id(uuid: UUID, process: int, random: bytes) -> None:
    for name in (f"psm_{uuid}", f"{uuid.hex}.shm", f"psm_{random.hex()}a"):
        assert process_named(name) is None
    assert process_named(f"torch_{process}_{int.from_bytes(random)}_12") == str(process)
    assert process_named(f"{uuid}-{process}") == str(process)


def test_compiled_code_is_taken_from_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = Path(child_environment({})["TORCHINDUCTOR_CACHE_DIR"])
    assert made == compiled_folder() == tmp_path / "steelyard" / "compiled"
    assert made.stat().st_mode & 0o777 == 0o700
    assert child_environment({"TORCHINDUCTOR_CACHE_DIR": "/c"})["TORCHINDUCTOR_CACHE_DIR"] == "/c"


@pytest.mark.parametrize("name", ["compiled", "runtime"])
def test_a_folder_that_another_put_there_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("STEELYARD_RUNTIME", str(tmp_path / "steelyard" / "runtime"))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "steelyard").mkdir()
    (tmp_path / "steelyard" / name).symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match="is not a directory of yours; name one that is"):
        compiled_folder() if name == "compiled" else runtime_folder()
