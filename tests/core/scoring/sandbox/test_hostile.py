"""Hostile programs in the real sandbox: each verdict is right, nothing is left of any, and the evaluator goes on."""

from __future__ import annotations

import os
import re
import socket
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.scoring.sandbox.sandbox import Limits, Outcome, Program, run_programs
from tests.core.scoring.sandbox.hostile import ANSWER, FAKES, TESTS
from tests.core.scoring.sandbox.hostile_harms import ANSWERS, BOMBS, HARM, HARMS

TOKEN = f"stray{os.getpid()}"  # names what a program may leave behind
BOMB_LIMITS = Limits(cpu_seconds=1.0, seconds=3.0, memory_mb=512)


@dataclass(frozen=True)
class Machine:
    """A folder that programs are after, and how they did."""

    folder: Path
    outcomes: Mapping[str, Outcome]
    servers: frozenset[psutil.Process]  # the session's own, which were there before


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("outside")
    before = frozenset(psutil.Process().children(recursive=True))
    (folder / "secret").write_text("s3cret")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
        servers = [
            stack.enter_context(socket.socket(family)) for family in (socket.AF_INET, socket.AF_UNIX, socket.AF_UNIX)
        ]
        addresses: list[Any] = [("127.0.0.1", 0), str(folder / "socket"), f"\0{TOKEN}"]
        for server, address in zip(servers, addresses, strict=True):
            server.bind(address)
            server.listen()
        asked = {
            "token": TOKEN,
            "folder": str(folder),
            "secret": str(folder / "secret"),
            "home": str(Path.home()),
            "repository": str(Path(__file__).resolve().parents[4]),
            "pids": [pid for pid in (os.getpid(), os.getppid()) if pid != 1],  # every namespace has a first process
            "port": servers[0].getsockname()[1],
        }
        given = "".join(f"{name} = {value!r}\n" for name, value in asked.items())
        codes = {name: textwrap.dedent(code) for name, (code, _) in FAKES.items()}
        codes |= {name: HARM + given + textwrap.dedent(code) + ANSWERS for name, code in HARMS.items()}
        bombs = {name: code for name, (code, _) in BOMBS.items()}
        yield Machine(folder, run(codes, Limits()) | run(bombs, BOMB_LIMITS), before)


def run(codes: Mapping[str, str], limits: Limits) -> dict[str, Outcome]:
    programs = [Program(code, TESTS, ("answer",)) for code in codes.values()]
    return dict(zip(codes, run_programs(programs, limits), strict=True))


def left_behind(machine: Machine) -> list[str]:
    """Processes that we started or that bear the token, and files outside."""
    children = set(psutil.Process().children(recursive=True)) - machine.servers
    found = [str(process) for process in children]
    for process in psutil.process_iter():
        try:
            found += [str(process)] if TOKEN in process.cmdline() else []
        except psutil.Error:
            continue
    places = [Path("/"), Path("/tmp"), Path("/dev/shm"), Path("/usr"), Path.home(), Path.cwd(), machine.folder]
    return found + [str(place / TOKEN) for place in places if (place / TOKEN).exists()]


@pytest.mark.parametrize("name", FAKES)
def test_no_program_passes_without_the_answer(machine: Machine, name: str) -> None:
    outcome = machine.outcomes[name]
    assert not outcome.passed
    assert re.search(FAKES[name][1], outcome.reason)
    assert left_behind(machine) == []


@pytest.mark.parametrize("name", HARMS)
def test_no_program_does_harm_and_the_right_answer_passes(machine: Machine, name: str) -> None:
    outcome = machine.outcomes[name]
    assert outcome.passed, f"{outcome.reason}: {outcome.output}"
    assert left_behind(machine) == []
    assert sorted(path.name for path in machine.folder.iterdir()) == ["secret", "socket"]


@pytest.mark.parametrize("name", BOMBS)
def test_no_program_takes_more_than_it_may(machine: Machine, name: str) -> None:
    outcome = machine.outcomes[name]
    assert not outcome.passed
    assert re.search(BOMBS[name][1], outcome.reason)
    assert len(outcome.output) <= BOMB_LIMITS.output_chars
    assert left_behind(machine) == []


def test_an_escape_would_be_seen(machine: Machine) -> None:
    """The programs that do harm fail where they succeed: here at what they may do."""
    code = HARM + "escaped = did(lambda: open('/tmp/file', 'w')) and exists('/tmp/file')" + ANSWERS
    assert not run({"escape": code}, Limits())["escape"].passed


def test_the_evaluator_goes_on(machine: Machine) -> None:
    codes = {"right": f"def answer(n): return {ANSWER}", "wrong": "def answer(n): return 0"}
    assert [outcome.passed for outcome in run(codes, Limits()).values()] == [True, False]


@pytest.mark.parametrize(
    "code",
    [
        "def answer(f): return f.__globals__",
        "def answer(f): return f.func_globals",
        "def answer(f): return f._peer.operate('setattr', f, ('x', 1))",
        "def answer(f): return f._peer.request('get', 'answer')",
        "def answer(f): return f._peer.request('call', 99, ['list', [['list', []], ['dict', []]]])",
    ],
)
def test_a_function_of_the_tests_can_be_called_and_nothing_more(code: str) -> None:
    (outcome,) = run_programs([Program(code, f"assert answer(lambda: {ANSWER}) == {ANSWER}", ("answer",))])
    assert not outcome.passed
    assert re.search("AttributeError|not an answer of an honest program", outcome.reason)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os\ndef answer(): os._exit(0)", "ended before its tests"),
        ("import os, sys\ndef answer(): os.write(int(sys.argv[1]), b'x' * 8)", "not an answer of an honest program"),
        ("def answer(): return object()", "refused"),
    ],
)
def test_tests_that_catch_everything_do_not_catch_these(code: str, reason: str) -> None:
    (outcome,) = run_programs([Program(code, "try: answer() == 1\nexcept: pass", ("answer",))])
    assert not outcome.passed
    assert outcome.reason.startswith(reason)


def test_an_address_instead_of_an_array_is_not_believed() -> None:
    """numpy would read the tests' own memory where an object names it."""
    code = """
class Array:
    __array_interface__ = {"data": (id(None), True), "shape": (1,), "typestr": "<i8", "version": 3}
def answer(): return Array()
"""
    tests = "import numpy\nassert numpy.asarray(answer()).dtype == object"
    (outcome,) = run_programs([Program(code, tests, ("answer",))])
    assert outcome.passed, outcome.reason
