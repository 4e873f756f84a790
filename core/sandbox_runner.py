"""Runs one program under limits and says whether it reached its end: ``python -I -S sandbox_runner.py``, a process of its own.

Inside a sandbox this is the first process of its PID namespace, so all that the program started ends with it. It reads
``{"program", "limits", "path"}`` as JSON from stdin and writes one JSON object to stdout. Standard library only.
"""

import json
import os
import resource
import runpy
import secrets
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

WATCH_SECONDS = 0.02
PAGE = os.sysconf("SC_PAGE_SIZE")


def run_child(program: str, limits: dict[str, Any], verdict: int, token: bytes) -> NoReturn:
    """Become the program. Its last act is to write ``token``; whatever ends it before that is a failure."""
    sizes = {
        resource.RLIMIT_AS: limits["memory_mb"] << 20,
        resource.RLIMIT_FSIZE: limits["file_mb"] << 20,
        resource.RLIMIT_NPROC: limits["processes"],
        resource.RLIMIT_CPU: int(limits["seconds"]) + 1,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_CORE: 0,
    }
    for kind, size in sizes.items():
        hard = resource.getrlimit(kind)[1]
        size = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(kind, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file too large is then an OSError with a message
    path = Path("program.py")
    path.write_text(program, encoding="utf-8")
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as error:
        print(f"SystemExit: {error.code}", file=sys.stderr, flush=True)
        os._exit(1)
    sys.stdout.flush()
    os.write(verdict, token)
    os._exit(0)


def processes_below() -> tuple[int, int]:
    """(count, resident bytes) of all processes that descend from this one."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(entry.name)
        parents[pid], sizes[pid] = int(fields[1]), int(fields[21]) * PAGE
    found, total, frontier = 0, 0, {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier and pid not in frontier}
        found += len(frontier)
        total += sum(sizes[pid] for pid in frontier)
    return found, total


def watch(child: int, output: int, limits: dict[str, Any]) -> tuple[str | None, bytes]:
    """Wait for ``child`` and keep the limits that no rlimit keeps. Returns (reason it was stopped or None, output)."""
    kept, deadline = b"", time.monotonic() + limits["seconds"]
    ended = os.pidfd_open(child)
    poller = select.poll()
    for descriptor in (ended, output):
        poller.register(descriptor, select.POLLIN)
    while True:
        for descriptor, _event in poller.poll(WATCH_SECONDS * 1000):
            if descriptor == output:
                piece = os.read(output, 1 << 16)
                if not piece:
                    poller.unregister(output)
                kept = (kept + piece)[-limits["output_chars"] :]
            if descriptor == ended:
                return None, kept + drain(output, limits["output_chars"] - len(kept))
        count, size = processes_below()
        if time.monotonic() > deadline:
            return f"took longer than {limits['seconds']:g} s", kept
        if count > limits["processes"]:
            return f"more than {limits['processes']} processes", kept
        if size > limits["memory_mb"] << 20:
            return f"more than {limits['memory_mb']} MB of memory", kept


def drain(output: int, length: int) -> bytes:
    """What lies in the pipe still, up to ``length`` bytes; others may hold its other end open."""
    os.set_blocking(output, False)
    try:
        return os.read(output, max(length, 0))
    except BlockingIOError:
        return b""


def main() -> None:
    """Read the job, run it, say how it ended."""
    job = json.load(sys.stdin)
    token = secrets.token_bytes(16)
    output_read, output_write = os.pipe()
    verdict_read, verdict_write = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (output_write, 1), (output_write, 2)):
            os.dup2(source, target)
        for descriptor in (null, output_read, output_write, verdict_read):
            os.close(descriptor)
        sys.path += job["path"]
        run_child(job["program"], job["limits"], verdict_write, token)
    os.close(output_write)
    os.close(verdict_write)
    stopped, output = watch(child, output_read, job["limits"])
    if stopped is not None:
        os.killpg(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.set_blocking(verdict_read, False)
    try:
        reached = os.read(verdict_read, len(token)) == token
    except BlockingIOError:
        reached = False
    text = output.decode("utf-8", "replace")
    answer = {
        "passed": stopped is None and status == 0 and reached,
        "reason": stopped or reason_of(status, reached, text),
        "seconds": time.monotonic() - started,
        "output": text,
    }
    json.dump(answer, sys.stdout)


def reason_of(status: int, reached: bool, text: str) -> str:
    """One line for a program that ended by itself."""
    if status == 0:
        return "passed" if reached else "ended before its last line"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else f"exit status {status}"


if __name__ == "__main__":
    main()
