"""Cores of logical devices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.host.slots import cores_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("devices", "of", "cores", "expected"),
    [
        ((0,), 1, range(8), tuple(range(8))),
        ((1,), 2, range(8), (4, 5, 6, 7)),
        ((1,), 2, {5, 3}, (5,)),  # those this process may use
        ((0, 1), 4, range(4), (0, 1)),
        ((3,), 4, range(2), (1,)),  # more devices than cores
        ((2,), 3, range(8), (4, 5)),
    ],
)
def test_devices_share_the_cores(devices: tuple[int, ...], of: int, cores: set[int], expected: tuple[int, ...]) -> None:
    assert cores_of(devices, of, cores) == expected


@given(of=st.integers(1, 16), cores=st.sets(st.integers(0, 200), min_size=1, max_size=64))
def test_no_two_devices_have_a_core_in_common_while_there_are_enough(of: int, cores: set[int]) -> None:
    shares = [set(cores_of((device,), of, cores)) for device in range(of)]
    assert all(share and share <= cores for share in shares)
    if len(cores) >= of:
        assert len(set.union(*shares)) == sum(map(len, shares))


def test_a_process_and_what_it_starts_keep_to_their_cores() -> None:
    code = """
import os, subprocess, sys, threading
from engines.host.slots import keep_to
begun = threading.Event()
seen = []
def work():
    begun.wait()
    seen.append(os.sched_getaffinity(0))
thread = threading.Thread(target=work)
thread.start()
keep_to((min(os.sched_getaffinity(0)),))
begun.set()
thread.join()
child = subprocess.check_output([sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"])
print(len(os.sched_getaffinity(0)), len(seen[0]), int(child))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "1"]
