"""The process of a program's tests, which never runs the program: ``python -I -S core/scoring/sandbox/tester.py READ WRITE``.

It reads a job as JSON from stdin and talks to the program's process over the descriptors READ and WRITE. To stdout it writes
``started`` when the program is about to run, and then one line of JSON with the verdict.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

sys.path.insert(0, os.path.realpath(__file__).rsplit("/", 4)[0])  # pathlib is slow to import
from core.scoring.sandbox.program import limit
from core.scoring.sandbox.values import CrossingError, MalformedError, RefusedError
from core.scoring.sandbox.wire import EndedError, Peer

del sys.path[0]

TESTS = "tests.py"


def run(job: dict[str, Any], peer: Peer) -> None:
    """Run the program and then its tests. Raises the exception that ends them early."""
    peer.request("run", job["code"])
    names: dict[str, Any] = {}
    exec(compile(job["prelude"], "prelude.py", "exec", dont_inherit=True), names)  # noqa: S102 - text of the benchmark
    for name in job["names"]:
        found, value = look_up(peer, name)
        if found:
            names[name] = value
    for name, module in job["modules"].items():
        if look_up(peer, name)[0]:  # which module it is, the program does not decide
            names[name] = importlib.import_module(module)
    exec(compile(job["tests"], TESTS, "exec", dont_inherit=True), names)  # noqa: S102 - text of the benchmark


def look_up(peer: Peer, name: str) -> tuple[bool, Any]:
    """Return whether the program defines ``name``, and its value or a handle of it."""
    try:
        return True, peer.request("get", name)
    except KeyError:
        return False, None


def no_request(message: list[Any]) -> Any:
    """Answer nothing else than calls of functions that the tests gave the program."""
    raise MalformedError(f"request {message[0][:50]!r}")


def verdict_of(job: dict[str, Any], peer: Peer) -> dict[str, Any]:
    """Return ``passed``, a ``reason`` of one line, and ``ended`` where the program's process was gone."""
    fault: BaseException | None = None
    try:
        run(job, peer)
    except BaseException as error:
        fault = error
    fault = CrossingError.first or fault  # tests may have caught the first
    match fault:
        case None:
            reason = "passed"
        case EndedError():
            reason = ""
        case RefusedError():
            reason = f"refused: {fault}"
        case MalformedError():
            reason = f"not an answer of an honest program: {fault}"
        case _:
            reason = described(fault, job["tests"])
    # A program may have put half a character there.
    reason = " ".join(reason.split())[:300].encode("utf-8", "replace").decode()
    return {"passed": fault is None, "reason": reason, "ended": isinstance(fault, EndedError)}


def described(error: BaseException, tests: str) -> str:
    """Return an exception's class and message, and the line of the tests that it passed through."""
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == TESTS:
            line = step.tb_lineno
        step = step.tb_next
    return message if line is None else f"{message} in: {tests.splitlines()[line - 1].strip()}"


def main() -> None:
    """Read the job, run it, write the verdict."""
    verdict = os.dup(1)
    os.dup2(2, 1)  # tests may print
    job = json.load(sys.stdin)
    sys.path += job["path"]
    peer = Peer(int(sys.argv[1]), int(sys.argv[2]), no_request, trusting=False)
    try:
        peer.request("limit", job["limits"], job["path"])
    except EndedError:
        os._exit(1)
    limit(job["limits"])
    os.write(verdict, b"started\n")
    os.write(verdict, json.dumps(verdict_of(job, peer)).encode() + b"\n")
    os._exit(0)


if __name__ == "__main__":
    main()
