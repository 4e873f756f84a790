"""The one process that is ready before it is needed. Real processes, but none that imports vLLM."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engines.process.child import Child
from engines.process.engine import child_environment
from engines.process.lightweight import Claim, Prewarmed
from tests.processes import gone, group_of, killed_at_the_end

MODULE = "tests.engines.scripted_process"


@pytest.fixture
def started() -> Iterator[list[Child]]:
    """Every process that the test has started."""
    found: list[Child] = []
    yield found
    for child in found:
        child.discard()


@pytest.fixture
def pool(started: list[Child]) -> Prewarmed:
    def start() -> Child:
        started.append(Child("scripted", MODULE, child_environment(os.environ), scratch=True))
        return started[-1]

    return Prewarmed(start)


def alive(child: Child) -> bool:
    return not child.exited.is_set()


def test_a_claim_has_one_process_ready_and_take_gives_it(pool: Prewarmed, started: list[Child]) -> None:
    claims = [Claim(pool), Claim(pool), Claim(pool)]
    for claim in claims:
        claim.begin()
        claim.begin()
    assert len(started) == 1
    assert pool.take() is started[0]
    assert len(started) == 2, "for the two others"
    claims[0].end()
    claims[0].end()
    claims[1].end()
    assert len(started) == 2
    assert alive(started[1])
    claims[2].end()
    assert not alive(started[1])
    assert alive(started[0]), "what was taken is its taker's"


def test_nobody_wants_one_any_more_and_it_ends_at_once(pool: Prewarmed, started: list[Child]) -> None:
    claim = Claim(pool)
    claim.begin()
    (child,) = started
    group = group_of(child.pid)
    claim.end()
    assert gone(group, 0)
    assert not child.log.exists()
    claim.begin()
    assert len(started) == 1, "a claim that has ended stays so"


def test_without_a_claim_a_new_one_is_given(pool: Prewarmed, started: list[Child]) -> None:
    assert pool.take() is started[0]


def test_one_that_died_while_it_waited_is_not_given(pool: Prewarmed, started: list[Child]) -> None:
    Claim(pool).begin()
    os.kill(started[0].pid, signal.SIGKILL)
    started[0].exited.wait(10)
    assert pool.take() is started[1]
    assert not started[0].log.exists()


def test_a_claim_without_a_pool_starts_nothing() -> None:
    claim = Claim(None)
    claim.begin()
    claim.end()


@pytest.mark.parametrize("moment", ["importing", "waiting"])
def test_a_killed_parent_leaves_no_waiting_process(tmp_path: Path, moment: str) -> None:
    """A process that waits for a device has no other reason to end than this one."""
    script = """
import os, sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from engines.process.lightweight import Claim, Prewarmed
from engines.process.child import Child
from engines.process.engine import child_environment
children = []
def start():
    children.append(Child("scripted", "tests.engines.scripted_process", child_environment(os.environ), scratch=True))
    return children[0]
Claim(Prewarmed(start)).begin()
if sys.argv[2] == "waiting":
    while "waits" not in children[0].log.read_text():
        time.sleep(0.01)
print(children[0].pid, flush=True)
sys.stdin.read()
"""
    with killed_at_the_end(script, str(tmp_path), moment) as pid:
        group = group_of(int(pid))
    assert len(group) == 1
    assert gone(group, 20)


def test_a_process_holds_the_slots_it_is_sent_until_it_ends(
    pool: Prewarmed, started: list[Child], tmp_path: Path
) -> None:
    slots = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("0.slot", "1.slot")]
    child = pool.take()
    child.send_slots(slots)
    child.send(("open", 0.0))
    assert child.connection.recv()[0] == "ready"
    for slot in slots:
        os.close(slot)
    assert held_by(child.pid, tmp_path) == {"0.slot", "1.slot"}


def held_by(pid: int, folder: Path) -> set[str]:
    return {Path(opened.path).name for opened in psutil.Process(pid).open_files() if Path(opened.path).parent == folder}
