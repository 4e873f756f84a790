"""Leases of cells, in a directory and on a real S3 server: one holder at a time, and none for longer than it lives."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.storage.open import open_storage
from core.storage.storage import Storage
from core.store.lease import Lessee, Watch, holder_path, lease_path, read_leases

CELL = "a" * 64
SECONDS = 30
ROOT = Path(__file__).resolve().parents[3]

HOLDER = """
import sys
from core.store.lease import Lessee
from core.storage.open import open_storage
lessee = Lessee(open_storage(sys.argv[1]), {"model": "m"})
print(lessee.acquire("a" * 64), flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.s3)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "directory" else request.getfixturevalue("s3_root")


@pytest.fixture
def storage(uri: str) -> Storage:
    return open_storage(uri)


@pytest.fixture
def lessee(storage: Storage) -> Iterator[Callable[..., Lessee]]:
    made: list[Lessee] = []

    def make(expires: float = 60.0) -> Lessee:
        made.append(Lessee(storage, {"model": f"m{len(made)}"}, expires))
        return made[-1]

    yield make
    for each in made:
        each.close()


def suspend(lessee: Lessee) -> None:
    """Have a holder give no sign of life any more, as a suspended machine's."""
    lessee._ending.set()


def test_of_many_who_ask_at_once_one_gets_the_cell(lessee: Callable[..., Lessee]) -> None:
    racers = [lessee() for _ in range(6)]
    start = threading.Barrier(len(racers))

    def race(each: Lessee) -> bool:
        start.wait(SECONDS)
        return each.acquire(CELL)

    with ThreadPoolExecutor(len(racers)) as pool:
        assert sum(pool.map(race, racers)) == 1


def test_a_cell_given_back_is_free_and_nothing_of_it_stays(storage: Storage, lessee: Callable[..., Lessee]) -> None:
    first, second = lessee(), lessee()
    assert first.acquire(CELL)
    assert not first.acquire(CELL)
    assert not second.acquire(CELL)
    first.release(CELL)
    assert second.acquire(CELL)
    for each in (first, second):
        each.close()
    assert storage.list("leases") == storage.list("holders") == []


def test_a_holder_that_gives_signs_of_life_is_not_taken_from(lessee: Callable[..., Lessee]) -> None:
    first, second = lessee(expires=3.0), lessee(expires=3.0)
    assert first.acquire(CELL)
    deadline = time.monotonic() + 6.0
    while time.monotonic() < deadline:
        assert not second.acquire(CELL)
        threading.Event().wait(0.3)


def test_a_silent_holders_cell_is_taken_by_one_of_those_who_try(
    storage: Storage, lessee: Callable[..., Lessee]
) -> None:
    silent = lessee(expires=2.0)
    assert silent.acquire(CELL)
    suspend(silent)
    racers = [lessee(expires=2.0) for _ in range(4)]
    taken, deadline = threading.Event(), time.monotonic() + SECONDS

    def race(each: Lessee) -> bool:
        while True:
            last = taken.is_set() or time.monotonic() > deadline  # whoever lost asks once more, and is refused
            if each.acquire(CELL):
                taken.set()
                return True
            if last:
                return False
            threading.Event().wait(0.05)

    with ThreadPoolExecutor(len(racers)) as pool:
        won = sum(pool.map(race, racers))
    assert won == 1
    assert max(lease.generation for lease in read_leases(storage)) == 2
    (winner,) = (each for each in racers if each._held)
    silent.release(CELL)  # it wakes up: what it held is not its to give back any more
    assert not lessee().acquire(CELL)
    winner.release(CELL)
    assert storage.list("leases") == []


def test_a_killed_process_of_this_machine_delays_nobody(uri: str, lessee: Callable[..., Lessee]) -> None:
    command = [sys.executable, "-c", HOLDER, uri]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert not lessee().acquire(CELL)
        process.kill()
    assert lessee().acquire(CELL)


def test_a_holder_of_another_machine_has_its_time(storage: Storage, lessee: Callable[..., Lessee]) -> None:
    holder = "b" * 32
    storage.put(holder_path(holder), json.dumps({"machine": "another", "pid": 1, "started": 0.0}).encode())
    storage.put(lease_path(CELL, 1), json.dumps({"holder": holder, "since": "now", "about": {}}).encode())
    assert not lessee().acquire(CELL)


def test_one_that_was_silent_while_the_storage_was_away_gets_a_moment(storage: Storage) -> None:
    now = [0.0]
    holder = "b" * 32
    storage.put(holder_path(holder), b"{}")
    threading.Event().wait(2.1)  # S3 counts whole seconds
    watch = Watch(storage, expires=1.0, clock=lambda: now[0])
    assert not watch.is_dead(holder)
    storage.put(holder_path(holder), b"{}")
    assert not watch.is_dead(holder)
    now[0] = 10.0
    threading.Event().wait(2.1)
    assert not watch.is_dead(holder)
    now[0] = 10.4
    assert watch.is_dead(holder)


def test_a_lease_that_was_taken_unheard_is_ones_own(storage: Storage, lessee: Callable[..., Lessee]) -> None:
    ours = lessee()
    storage.put(lease_path(CELL, 3), json.dumps({"holder": ours.id, "since": "now", "about": {}}).encode())
    assert ours.acquire(CELL)
    ours.release(CELL)
    assert storage.list("leases") == []


def test_what_is_no_lease_is_stepped_over(storage: Storage, lessee: Callable[..., Lessee]) -> None:
    storage.put(f"leases/{CELL}/000007.json", b"{")
    storage.put(f"leases/{CELL}/notes.txt", b"hello")
    assert lessee().acquire(CELL)
    assert not lessee().acquire(CELL)


@pytest.mark.parametrize("age", [0.0, 1.5])
def test_a_file_is_as_old_as_the_storage_says(storage: Storage, age: float) -> None:
    assert storage.age("a/file") is None
    storage.put("a/file", b"x")
    threading.Event().wait(age)
    found = storage.age("a/file")
    assert found is not None
    assert age - 1.1 <= found <= age + 2.0
