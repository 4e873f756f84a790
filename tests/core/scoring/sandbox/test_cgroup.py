"""Control groups: read from files, and in groups that are handed over to an evaluator as systemd does it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.scoring.sandbox.cgroup import Group, delegated, own_group
from core.scoring.sandbox.jail import Usage

ROOT = Path(__file__).resolve().parents[4]
NO_PID = 2**22 + 1  # above what the kernel gives

STATE = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
    "memory.events": "low 0\nhigh 0\nmax 9\noom 0\noom_kill 0\n",
    "memory.current": "1000\n",
    "memory.stat": "anon 300\nfile 500\nshmem 100\nslab_reclaimable 50\nsock 20\n",
}


def written(folder: Path, **changes: str) -> Group:
    for name, text in {**STATE, **changes}.items():
        (folder / name).write_text(text)
    return Group(folder)


def test_use_is_what_the_kernel_cannot_drop(tmp_path: Path) -> None:
    assert written(tmp_path).usage() == Usage(0, 2.5, 1000 - 400 - 50)


def test_a_process_that_was_ended_for_memory_is_above_any_limit(tmp_path: Path) -> None:
    assert written(tmp_path, **{"memory.events": "oom 1\noom_kill 1\n"}).usage().memory == sys.maxsize


def test_a_group_without_controllers_or_that_is_gone_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 1000000\n")
    assert Group(tmp_path).usage() == Usage(0, 1.0, 0)
    assert Group(tmp_path / "gone").usage() == Usage(0, 0.0, 0)
    Group(tmp_path / "gone").remove()


def test_the_larger_account_counts() -> None:
    assert Usage(3, 1.0, 10).most(Usage(0, 2.0, 5)) == Usage(3, 2.0, 10)


# In groups of the test's own

EVALUATOR = """
import json, os, sys, time
from pathlib import Path
from core.scoring.sandbox import cgroup
from core.scoring.sandbox.sandbox import *
parent = cgroup.delegated()
made = []
group = cgroup.new_group(Limits())
if group: made, _ = [group.path.name], group.remove()
code, tests, limits = json.loads(sys.argv[1])
(outcome,) = run_programs([Program(code, tests)], Limits(**limits))
left = [path.name for path in parent.glob("steelyard-*")] if parent else []
print(json.dumps({"parent": str(parent), "made": made, "left": left, "passed": outcome.passed, "reason": outcome.reason,
    "output": outcome.output}))
"""
UNSEEN = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(10):
    if os.fork() == 0:
        while time.process_time() < 0.04: pass
        os._exit(0)
try: os.wait()
except ChildProcessError: pass
"""
ENTER = 'echo 0 >"$0/cgroup.procs"; exec "$@"'
HONEST: tuple[str, str, dict[str, Any]] = ("def answer(): return 1", "assert answer() == 1", {})


@pytest.fixture
def unit() -> Iterator[Path]:
    """A group as systemd makes one for a unit with ``DelegateSubgroup=main``, not yet marked as handed over."""
    mounts = [part.mountpoint for part in psutil.disk_partitions(all=True) if part.fstype == "cgroup2"]
    if os.geteuid() != 0 or not mounts:
        pytest.skip("only root hands over a group, of cgroup v2")
    folder = Path(mounts[0], f"steelyard_test_{os.getpid()}")
    try:
        (folder / "main").mkdir(parents=True)
    except OSError:
        pytest.skip("the control groups are not ours to write")
    yield folder
    for path in (*(path for path in folder.iterdir() if path.is_dir()), folder):
        path.rmdir()


def evaluate(group: Path, program: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    command = ["sh", "-c", ENTER, str(group), sys.executable, "-c", EVALUATOR, json.dumps(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def mark(folder: Path) -> None:
    os.setxattr(folder, "user.delegate", b"1")


@pytest.mark.parametrize("inside", [lambda unit: unit / "main", lambda unit: unit], ids=["subgroup", "no subgroup"])
def test_a_group_that_is_handed_over_is_used_and_left_as_it_was(unit: Path, inside: Callable[[Path], Path]) -> None:
    (unit / f"steelyard-{NO_PID}-0").mkdir()  # of an evaluator that was killed
    mark(unit)
    told = evaluate(inside(unit), HONEST)
    assert told["passed"], told["reason"]
    assert told["parent"] == str(unit)
    assert len(told["made"]) == 1
    assert told["left"] == []


def test_a_group_that_is_not_handed_over_is_left_alone(unit: Path) -> None:
    told = evaluate(unit / "main", HONEST)
    assert told["passed"], told["reason"]
    assert (told["parent"], told["made"]) == ("None", [])


def test_processor_time_that_no_process_shows_is_in_the_group(unit: Path) -> None:
    """Outside the sandbox, where a parent may ignore how its children end."""
    (unit / "one").mkdir()
    subprocess.run(["sh", "-c", ENTER, str(unit / "one"), sys.executable, "-c", UNSEEN], check=True)
    group = Group(unit / "one")
    assert group.usage().cpu_seconds >= 0.4
    group.remove()
    assert not group.path.exists()


# What /proc shows nowhere, by calls that are allowed.
KERNEL_MEMORY = """
import fcntl, os, struct, time
def answer():
    for number in range(40):
        if os.fork(): continue
        with open(f"/tmp/{number}", "w") as file:  # a lock is some 200 bytes of the kernel's
            for byte in range(10**7): fcntl.fcntl(file, fcntl.F_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 2 * byte, 1, 0))
    time.sleep(600)
"""


def test_memory_of_the_kernel_is_in_the_group(unit: Path) -> None:
    if "memory" not in (unit / "cgroup.controllers").read_text().split():
        pytest.skip("cgroup v2 has no memory controller here")
    mark(unit)
    told = evaluate(unit / "main", (KERNEL_MEMORY, "answer()", {"cpu_seconds": 60, "seconds": 60, "memory_mb": 320}))
    assert told["reason"] == "more than 320 MB of memory"
    assert told["left"] == []


def test_no_group_is_found_where_nobody_handed_one_over() -> None:
    group = own_group()
    if group is None or not any(_marked(folder) for folder in (group, group.parent)):
        assert delegated() is None


def _marked(folder: Path) -> bool:
    try:
        return os.getxattr(folder, "user.delegate") == b"1"
    except OSError:
        return False
